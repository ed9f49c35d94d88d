"""Settings: flag over environment over newsbert.toml over default, and what is refused."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from newsbert.core import config, environment
from newsbert.core.config import resolve
from newsbert.core.settings import (
    CloudRunSettings,
    ClusterSettings,
    HostSettings,
    ImageSettings,
    ServeSettings,
    TrackingSettings,
    TrainSettings,
)
from newsbert.errors import UsageError

relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
SECTIONS = (TrackingSettings, TrainSettings, ServeSettings, ImageSettings)


def toml(content: str) -> None:
    Path("newsbert.toml").write_text(content, encoding="utf-8")


def refused(section: Any, **flags: Any) -> str:
    with pytest.raises(UsageError) as caught:
        resolve(section, **flags)
    assert caught.value.hint
    return caught.value.message


@pytest.mark.parametrize("section", SECTIONS)
def test_without_any_source_the_defaults_hold(section: Any) -> None:
    assert resolve(section) == section()


def test_flag_over_environment_over_file_over_default(monkeypatch: pytest.MonkeyPatch) -> None:
    default = TrainSettings().epochs
    assert resolve(TrainSettings).epochs == default
    toml("[train]\nepochs = 7\n")
    assert resolve(TrainSettings).epochs == 7
    monkeypatch.setenv("NEWSBERT_TRAIN_EPOCHS", "8.5")
    assert resolve(TrainSettings).epochs == 8.5
    assert resolve(TrainSettings, epochs=9).epochs == 9
    assert resolve(TrainSettings, epochs=None).epochs == 8.5


def test_own_variable_over_the_ecosystems_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    toml('tracking_uri = "http://file"\nexperiment = "from the file"\nregistry_uri = "http://registry"\n')
    assert resolve(TrackingSettings) == TrackingSettings("http://file", "http://registry", "from the file")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "from mlflow")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://mlflow-registry")
    assert resolve(TrackingSettings) == TrackingSettings("http://mlflow", "http://mlflow-registry", "from mlflow")
    monkeypatch.setenv("NEWSBERT_TRACKING_URI", "http://own")
    assert resolve(TrackingSettings).tracking_uri == "http://own"
    assert resolve(TrackingSettings, tracking_uri="http://flag").tracking_uri == "http://flag"


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWSBERT_TRAIN_EPOCHS", "")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert resolve(TrainSettings) == TrainSettings()
    assert resolve(TrackingSettings) == TrackingSettings()


@pytest.mark.parametrize(
    ("section", "table"), [(TrainSettings, "TRAIN"), (ServeSettings, "SERVE"), (ImageSettings, "IMAGE")]
)
def test_every_setting_has_its_variable(section: Any, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected: dict[str, Any] = {}
    for setting in dataclasses.fields(section):
        default: Any = setting.default
        value: Any = default + 1 if type(default) in {int, float} else not default if default is False else "7"
        value = min(value, setting.metadata["le"]) if setting.metadata["le"] and default is not None else value
        value = ("a b", "c") if isinstance(default, tuple) else value
        value = setting.metadata["choices"][-1] if setting.metadata["choices"] else value
        value = 0.5 if setting.name in {"learning_rate", "review_threshold"} else value
        numbers = {"max_train_samples", "epochs", "max_steps", "batch_size", "grpc_port", "metrics_port"}
        expected[setting.name] = 7 if default is None and setting.name in numbers else value
        monkeypatch.setenv(
            f"NEWSBERT_{table}_{setting.name.upper()}", ",".join(value) if isinstance(value, tuple) else str(value)
        )
    assert resolve(section) == section(**expected)


def test_an_environment_is_a_table_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(config.CONFIG_FILE).write_text("[environments.eu-west]\nport = 81\n[environments.dev]\n", encoding="utf-8")
    monkeypatch.setenv("NEWSBERT_ENVIRONMENTS_EU_WEST_HOST", "10.0.0.7")
    found = config.environments()
    assert found == {"eu-west": HostSettings(host="10.0.0.7", port=81), "dev": HostSettings()}


def test_an_environment_has_the_keys_of_its_target() -> None:
    toml("[environments.cloud]\ntarget = 'cloud-run'\nregion = 'europe-west1'\n[environments.k]\ntarget='kubernetes'\n")
    assert config.environments() == {"cloud": CloudRunSettings(region="europe-west1"), "k": ClusterSettings()}
    for wrong, message in (
        ("target = 'kubernetes'\nport = 80", "unknown key 'port' in [environments.x]"),
        ("region = 'europe-west1'", "unknown key 'region' in [environments.x]"),
        ("target = 'nomad'", "target 'nomad' of [environments.x] cannot be"),
        ("target = ['host']", "target ['host'] of [environments.x] cannot be"),
    ):
        toml(f"[environments.x]\n{wrong}\n")
        with pytest.raises(UsageError) as caught:
            config.environments()
        assert message in caught.value.message


@pytest.mark.parametrize(
    ("section", "flag"),
    [
        (TrainSettings, {"epochs": 0}), (TrainSettings, {"epochs": float("nan")}), (TrainSettings, {"batch_size": 0}),
        (TrainSettings, {"seed": -1}), (TrainSettings, {"learning_rate": 2}), (ServeSettings, {"port": 65_536}),
        (ServeSettings, {"token_expiry_min": 0}), (ServeSettings, {"drain_s": -1}), (ServeSettings, {"grpc_port": 0}),
        (ServeSettings, {"workers": 0}), (ServeSettings, {"batch_delay_ms": -1}), (ServeSettings, {"timeout_s": 0}),
        (TrainSettings, {"review_target_accuracy": 1.1}), (TrainSettings, {"review_threshold": -0.1}),
        (ServeSettings, {"review_threshold": float("nan")}),
    ],
)  # fmt: skip
def test_a_number_out_of_range_is_refused_with_the_range(section: Any, flag: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(section, **flag)
    (name,) = flag
    option = name.removesuffix("_s").removesuffix("_min").replace("_", "-")
    assert caught.value.message.startswith(f"the option --{option}: ")
    assert "or more" in str(caught.value.hint) or "from" in str(caught.value.hint)


def test_a_text_that_is_no_choice_is_refused_with_the_choices() -> None:
    with pytest.raises(UsageError) as caught:
        resolve(ServeSettings, log_format="xml")
    assert "--log-format: 'xml'" in caught.value.message
    assert "text, json" in str(caught.value.hint)


def test_tables_of_the_file_do_not_mix() -> None:
    toml("[serve]\nbatch_size = 3\nport = 9000\n[train]\nbatch_size = 5\n[image]\nrepository = 'r.example/team'\n")
    assert resolve(ServeSettings) == ServeSettings(batch_size=3, port=9000)
    assert resolve(TrainSettings) == TrainSettings(batch_size=5)
    assert resolve(ImageSettings) == ImageSettings(repository="r.example/team")
    assert resolve(TrackingSettings) == TrackingSettings()


def test_false_looking_flags_are_flags() -> None:
    toml("[serve]\nport = 9000\n[train]\nseed = 5\n")
    assert resolve(ServeSettings, port=0).port == 0
    assert resolve(TrainSettings, seed=0).seed == 0


@pytest.mark.parametrize(
    ("given", "expected"),
    [("1", True), ("true", True), ("TRUE", True), (True, True), ("0", False), ("false", False), (False, False)],
)
def test_a_switch_is_on_or_off(given: Any, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(ServeSettings, token_auth=given).token_auth is expected
    toml(f"[serve]\ntoken_auth = {str(given).lower() if isinstance(given, bool) else repr(given)}\n")
    assert resolve(ServeSettings).token_auth is expected
    monkeypatch.setenv("NEWSBERT_TOKEN_AUTH", str(given))
    assert resolve(ServeSettings).token_auth is expected
    assert resolve(ServeSettings, token_auth=not expected).token_auth is not expected


@pytest.mark.parametrize("given", ["yes please", "2", "on", " ", 1, 0, 1.0, [], ["true"], {}])
def test_a_switch_that_is_neither_on_nor_off_is_refused(given: Any) -> None:
    # Whoever means to have tokens must not find out later that there were none.
    assert "neither yes nor no" in refused(ServeSettings, token_auth=given)


@pytest.mark.parametrize(
    "given_labels", ["World, Sci/Tech ,Sport & loisirs,", ["World", "Sci/Tech", "Sport & loisirs"]]
)
def test_a_list_may_be_given_as_text_or_as_list(given_labels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ("World", "Sci/Tech", "Sport & loisirs")
    assert resolve(TrainSettings, labels=given_labels).labels == expected
    toml(f"[train]\nlabels = {given_labels!r}\n")
    assert resolve(TrainSettings).labels == expected
    if isinstance(given_labels, str):
        monkeypatch.setenv("NEWSBERT_TRAIN_LABELS", given_labels)
        assert resolve(TrainSettings).labels == expected


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("seed", "many", "a whole number"),
        ("seed", "1.5", "a whole number"),
        ("max_train_samples", "all", "a whole number"),
        ("epochs", "three", "a number"),
        ("learning_rate", "1e-4x", "a number"),
    ],
)
def test_a_variable_of_the_wrong_type_is_named(
    name: str, value: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = f"NEWSBERT_TRAIN_{name.upper()}"
    monkeypatch.setenv(variable, value)
    message = refused(TrainSettings)
    assert variable in message
    assert repr(value) in message
    assert kind in message


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
        ("output = {a = 1}", "a text"),
        ("labels = 5", "a list of texts"),
        ("labels = true", "a list of texts"),
        ("labels = {a = 1}", "a list of texts"),
    ],
)
def test_a_key_of_the_wrong_type_is_named(line: str, kind: str) -> None:
    toml(f"[train]\n{line}\n")
    message = refused(TrainSettings)
    assert f"newsbert.toml, key {line.split(maxsplit=1)[0]!r}" in message
    assert f"is not {kind}" in message


def test_a_flag_of_the_wrong_type_is_named() -> None:
    assert refused(TrainSettings, learning_rate="fast") == "the option --learning-rate: 'fast' is not a number"
    assert "--labels" in refused(TrainSettings, labels=7)


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
        ("[serve]\nreview_below = 0.8\n", "review_below", "[serve]", "it is now review_threshold"),
        ("[kubernetes]\nqueue_ms = 9\n", "queue_ms", "[kubernetes]", "it is now target_queue_ms"),
        ("[environments.a]\nleast_accuracy = 0.8\n", "least_accuracy", "[environments.a]", "it is now min_accuracy"),
    ],
)
def test_an_unknown_key_is_an_error_that_names_the_known_ones(content: str, key: str, where: str, known: str) -> None:
    toml(content)
    section: Any
    for section in SECTIONS:  # whichever table is asked for
        with pytest.raises(UsageError, match=f"unknown key {key!r}") as caught:
            resolve(section)
        assert where in caught.value.message
        assert known in str(caught.value.hint)
    with pytest.raises(UsageError):
        config.model_name()


def test_a_section_that_is_no_table_is_an_error() -> None:
    toml("train = 5\n")
    assert refused(TrainSettings) == "newsbert.toml: 'train' must be a table"


@pytest.mark.parametrize("content", [b"[train", b"a = ", b"\xff\xfe", b"a = 1\na = 2\n", b"a = " + b"[" * 5000])
def test_a_broken_file_is_a_usage_error(content: bytes) -> None:
    Path("newsbert.toml").write_bytes(content)
    assert refused(TrainSettings).startswith("newsbert.toml cannot be read")


@relaxed
@given(st.one_of(st.text(), st.text(st.sampled_from("[]train.seed=\"'123{},\n# ")), st.binary()))
def test_whatever_the_file_holds_there_are_settings_or_a_usage_error(content: str | bytes) -> None:
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
def test_any_value_for_any_key_is_of_the_settings_type_or_refused(name: str, value: str) -> None:
    toml(f"[train]\n{name} = {value}\n")
    try:
        found = getattr(resolve(TrainSettings), name)
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
        assert type(found) is kind


def test_the_model_name_follows_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.model_name() is None
    toml('model_name = "FromFile"\n')
    assert config.model_name() == "FromFile"
    assert resolve(TrackingSettings) == TrackingSettings()
    monkeypatch.setenv("NEWSBERT_MODEL_NAME", "FromEnvironment")
    assert config.model_name() == "FromEnvironment"
    assert config.model_name("FromFlag") == "FromFlag"


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        resolve(TrainSettings).seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("rows", "batch", "epochs"),
    [(1, 4, 60), (28, 4, 9), (32, 4, 8), (102, 12, 7), (256, 32, 8), (384, 32, 5), (1_000_000, 32, 5)],
)
def test_few_rows_are_read_in_small_batches_until_there_were_steps_enough(rows: int, batch: int, epochs: int) -> None:
    settings = TrainSettings()
    assert (settings.rows_a_step(rows), settings.passes(rows)) == (batch, epochs)
    given = TrainSettings(epochs=2, batch_size=7)
    assert (given.rows_a_step(rows), given.passes(rows)) == (7, 2)


def test_help_shows_defaults_and_meanings() -> None:
    assert config.default_of(TrainSettings, "max_length") == str(TrainSettings().max_length)
    assert float(config.default_of(ServeSettings, "timeout_s")) == ServeSettings().timeout_s
    assert not config.default_of(ServeSettings, "timeout_s").endswith(".0")
    assert config.default_of(TrainSettings, "max_train_samples") == ""
    assert config.default_of(TrainSettings, "labels") == ""
    for section in SECTIONS:
        for setting in dataclasses.fields(section):
            assert config.help_of(section, setting.name)


def test_directories_follow_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, own, shared, find in (
        ("cache", "NEWSBERT_CACHE_DIR", "XDG_CACHE_HOME", environment.cache_dir),
        ("state", "NEWSBERT_STATE_DIR", "XDG_STATE_HOME", environment.state_dir),
    ):
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv(own, str(tmp_path / "own"))
        assert find() == tmp_path / "own"
        monkeypatch.delenv(own)
        monkeypatch.setenv(shared, str(tmp_path / name))
        assert find() == tmp_path / name / "newsbert"
        monkeypatch.delenv(shared)
        assert find().is_relative_to(tmp_path)
        assert find().name == "newsbert"


def test_a_child_process_gets_this_environment_and_what_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWSBERT_TEST_A", "1")
    monkeypatch.setenv("NEWSBERT_TEST_B", "2")
    child = environment.child_environment(NEWSBERT_TEST_B="3", NEWSBERT_TEST_C="4")
    assert (child["NEWSBERT_TEST_A"], child["NEWSBERT_TEST_B"], child["NEWSBERT_TEST_C"]) == ("1", "3", "4")


def test_mlflow_is_kept_quiet_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    monkeypatch.delenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", raising=False)
    environment.silence_mlflow()
    child = environment.child_environment()
    assert child["MLFLOW_DISABLE_TELEMETRY"] == "false"
    assert child["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] == "false"
    assert environment.mlflow_run_id() is None
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    assert environment.mlflow_run_id() == "0" * 32
    monkeypatch.delenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", raising=False)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user who may not look there")
def test_a_directory_that_may_not_be_looked_into_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    program = (
        "import os; from newsbert.core import config; from newsbert.core.settings import TrainSettings\n"
        "os.setuid(54321); config.resolve(TrainSettings)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "UsageError: newsbert.toml cannot be read: Permission denied" in done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user without a home")
def test_without_a_home_the_variables_are_enough() -> None:
    """As in a container, whose user has a number that nobody has given a name."""
    program = (
        "import os; from newsbert.core.environment import cache_dir, state_dir\n"
        "os.setuid(54321); print(state_dir(), cache_dir())"
    )

    def run(**variables: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", program]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=variables)

    named = run(NEWSBERT_STATE_DIR="/s", NEWSBERT_CACHE_DIR="/c")
    assert (named.returncode, named.stdout) == (0, "/s /c\n"), named.stderr
    assert "UsageError: this user has no home directory" in run().stderr
