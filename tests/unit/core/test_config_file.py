"""newsbert.toml: its tables, and what is refused of them with its place."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from newsbert.core import config
from newsbert.core.config import resolve
from newsbert.core.settings import (
    CloudRunSettings,
    ClusterSettings,
    ImageSettings,
    ServeSettings,
    TrackingSettings,
    TrainSettings,
)
from newsbert.errors import UsageError
from tests.support.configuration import SECTIONS, get_refusal, write_config

relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)


def test_an_environment_has_the_keys_of_its_target() -> None:
    write_config(
        "[environments.cloud]\ntarget = 'cloud-run'\nregion = 'europe-west1'\n[environments.k]\ntarget='kubernetes'\n"
    )
    assert config.environments() == {"cloud": CloudRunSettings(region="europe-west1"), "k": ClusterSettings()}
    for wrong, message in (
        ("target = 'kubernetes'\nport = 80", "unknown key 'port' in [environments.x]"),
        ("region = 'europe-west1'", "unknown key 'region' in [environments.x]"),
        ("target = 'nomad'", "target 'nomad' of [environments.x] cannot be"),
        ("target = ['host']", "target ['host'] of [environments.x] cannot be"),
    ):
        write_config(f"[environments.x]\n{wrong}\n")
        with pytest.raises(UsageError) as caught:
            config.environments()
        assert message in caught.value.message


def test_tables_of_the_file_are_separate() -> None:
    write_config(
        "[serve]\nbatch_size = 3\nport = 9000\n[train]\nbatch_size = 5\n[image]\nrepository = 'r.example/team'\n"
    )
    assert resolve(ServeSettings) == ServeSettings(batch_size=3, port=9000)
    assert resolve(TrainSettings) == TrainSettings(batch_size=5)
    assert resolve(ImageSettings) == ImageSettings(repository="r.example/team")
    assert resolve(TrackingSettings) == TrackingSettings()


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("seed = 1.5", "a whole number"),
        ("seed = inf", "a whole number"),
        ("seed = true", "a whole number"),
        ("seed = [1]", "a whole number"),
        ("seed = 2004-08-01", "a whole number"),
        ("epochs = 'x'", "a number"),
        ("epochs = {a = 1}", "a number"),
        ("data = true", "a text"),
        ("data = ['a.csv']", "a text"),
        ("output_dir = {a = 1}", "a text"),
        ("labels = 5", "a list of texts"),
        ("labels = true", "a list of texts"),
        ("labels = {a = 1}", "a list of texts"),
    ],
)
def test_a_key_of_the_wrong_type_is_named(line: str, kind: str) -> None:
    write_config(f"[train]\n{line}\n")
    message = get_refusal(TrainSettings)
    assert f"newsbert.toml, key {line.split(maxsplit=1)[0]!r}" in message
    assert f"is not {kind}" in message


@pytest.mark.parametrize(
    ("content", "key", "where", "known"),
    [
        ("epochs = 3\n", "epochs", "the top level", "tracking_uri"),
        ("[training]\nepochs = 3\n", "training", "the top level", "train"),
        ('"" = 3\n', "", "the top level", "model_name"),
        ("[train]\nepoch = 3\n", "epoch", "[train]", "epochs"),
        ("[serve]\nepochs = 3\n", "epochs", "[serve]", "port"),
        ("[train.more]\nx = 1\n", "more", "[train]", "seed"),
        ("[train]\nsamples = 8\n", "samples", "[train]", "it is now max_train_samples"),
        ('[train]\noutput = "b"\n', "output", "[train]", "it is now output_dir"),
        ("[serve]\nreview_below = 0.8\n", "review_below", "[serve]", "it is now review_threshold"),
        ("[kubernetes]\nqueue_ms = 9\n", "queue_ms", "[kubernetes]", "it is now target_queue_ms"),
        ("[environments.a]\nleast_accuracy = 0.8\n", "least_accuracy", "[environments.a]", "it is now min_accuracy"),
    ],
)
def test_an_unknown_key_is_an_error_with_the_known_keys(content: str, key: str, where: str, known: str) -> None:
    write_config(content)
    section: Any
    for section in SECTIONS:  # whichever table is read
        with pytest.raises(UsageError, match=f"unknown key {key!r}") as caught:
            resolve(section)
        assert where in caught.value.message
        assert known in str(caught.value.hint)
    with pytest.raises(UsageError):
        config.model_name()


def test_a_section_that_is_no_table_is_an_error() -> None:
    write_config("train = 5\n")
    assert get_refusal(TrainSettings) == "newsbert.toml: 'train' must be a table"


@pytest.mark.parametrize("content", [b"[train", b"a = ", b"\xff\xfe", b"a = 1\na = 2\n", b"a = " + b"[" * 5000])
def test_a_broken_file_is_a_usage_error(content: bytes) -> None:
    Path("newsbert.toml").write_bytes(content)
    assert get_refusal(TrainSettings).startswith("newsbert.toml cannot be read")


@relaxed
@given(st.one_of(st.text(), st.text(st.sampled_from("[]train.seed=\"'123{},\n# ")), st.binary()))
def test_any_file_gives_settings_or_a_usage_error(content: str | bytes) -> None:
    Path("newsbert.toml").write_bytes(
        content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    )
    try:
        assert isinstance(resolve(TrainSettings), TrainSettings)
    except UsageError as error:
        assert error.hint


toml_values = st.sampled_from(
    ["5", "1.5", "true", "'x'", "''", "[1, 2]", "['a']", "{a = 1}", "nan", "-inf", "07:30:00"]
)


@relaxed
@given(st.sampled_from([setting.name for setting in dataclasses.fields(TrainSettings)]), toml_values)
def test_any_value_is_converted_to_the_settings_type_or_refused(name: str, value: str) -> None:
    write_config(f"[train]\n{name} = {value}\n")
    try:
        resolved = getattr(resolve(TrainSettings), name)
    except UsageError as error:
        assert repr(name) in error.message
    else:
        default = getattr(TrainSettings(), name)
        kind = (
            type(default)
            if default is not None
            else {
                "max_train_samples": int,
                "max_steps": int,
                "batch_size": int,
                "epochs": float,
                "learning_rate": float,
            }.get(name, str)
        )
        assert type(resolved) is kind


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user who may not look there")
def test_an_unreadable_directory_is_a_usage_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    program = (
        "import os; from newsbert.core import config; from newsbert.core.settings import TrainSettings\n"
        "os.setuid(54321); config.resolve(TrainSettings)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "UsageError: newsbert.toml cannot be read: Permission denied" in done.stderr
