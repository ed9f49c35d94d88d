"""The whole path, as the workflows go it: rows, trainer image, registry, images, development, production, and back."""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from newsbert.core.settings import ImageSettings
from newsbert.images.engine.engine import Engine
from tests.support.calls import free_port
from tests.support.cli import Cli, long
from tests.support.environments import environment_toml, remove_environment
from tests.support.images import Images, image_toml
from tests.support.postgres import Postgres
from tests.support.servers import Registry

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.engine,
    pytest.mark.skipif(importlib.util.find_spec("flask_wtf") is None, reason="needs newsbert[tracking]"),
]
ENVIRONMENTS = ("dev", "production")
STEPS = ["train", "register", "build the serving image", "push"]


@pytest.fixture
def team(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A tracking server on PostgreSQL that asks for a password, and two environments."""
    database = Postgres()
    options = ("--port", 0, "--workers", 1, "--auth", "--backend-store", database.database())
    up = cli("tracking", "up", "--detach", "--json", *options)
    assert up.returncode == 0, up.stderr
    server = json.loads(up.stdout)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server["url"])
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", server["admin_password"])
    yield server["url"]
    cli("tracking", "down")
    database.stop()
    for name in ENVIRONMENTS:
        remove_environment(name)


@pytest.fixture
def configure(
    tmp_path: Path, tiny_encoder: Path, labelled_file: Path, images: Images, image_settings: ImageSettings
) -> Callable[..., None]:
    """Write newsbert.toml, with the training's seed and the rows that production has to get right.

    The trainer's image is there, built for the other tests that need it.
    """
    ports = {name: free_port() for name in ENVIRONMENTS}

    def write(seed: int, acceptance: Path, epochs: int = 25) -> None:
        (tmp_path / "newsbert.toml").write_text(
            'model_name = "News"\n'
            f'[train]\ndata = "{labelled_file}"\nbase_model = "{tiny_encoder}"\nseed = {seed}\nepochs = {epochs}\n'
            "batch_size = 8\nlearning_rate = 3e-3\nmax_length = 48\n"
            + image_toml(image_settings)
            + environment_toml("dev", ports["dev"])
            + environment_toml("production", ports["production"])
            + f'acceptance_data = "{acceptance}"\nmin_accuracy = 0.8\n'
        )

    return write


def test_from_rows_to_production_and_back(
    team: str,
    engine: Engine,
    registry: Registry,
    configure: Callable[..., None],
    cli: Cli,
    labelled_file: Path,
    tmp_path: Path,
) -> None:
    import mlflow

    configure(1, labelled_file)
    first = _run_pipeline(cli, "--to", "dev")
    assert (first["model"], first["environment"], first["previous"]) == ("News/1", "dev", None)
    assert first["done"] == [*STEPS, "deploy to dev", "accept"]
    assert "@sha256:" in first["image"]
    # Nothing is done twice.
    again = _run_pipeline(cli, "--to", "dev")
    assert (again["model"], again["run_id"], again["image"]) == ("News/1", first["run_id"], first["image"])
    assert again["done"] == ["accept"]
    released = _run_pipeline(cli, "News/1", "--to", "production")
    assert (released["image"], released["run_id"]) == (first["image"], None)
    assert f"90 of 90 rows of {labelled_file}: 1.0000, 0.8 required" in released["accepted"]

    configure(2, labelled_file)
    second = _run_pipeline(cli, "--to", "dev")
    assert (second["model"], second["previous"]) == ("News/2", "News/1")

    # What production does not accept is not left there.
    swapped = tmp_path / "swapped.csv"
    names = sorted({line.rpartition(",")[2] for line in labelled_file.read_text().splitlines()[1:]})
    swapped.write_text("text,label\n" + "".join(f"some,{name}\n" for name in names * 3))
    configure(2, tmp_path / "missing.csv")
    unread = cli("pipeline", "News@dev", "--to", "production", timeout_s=400)
    assert unread.returncode == 2 and "missing.csv" in unread.stderr
    assert json.loads(cli("environments", "--json").stdout)["environments"]["production"]["model"] == "News/1"
    configure(2, swapped)
    refused = cli("pipeline", "News@dev", "--to", "production", timeout_s=400)
    assert refused.returncode == 1, refused.stderr
    assert "News/2 is not accepted in production: 3 of 9 rows" in refused.stderr
    assert "News/1 answers again" in refused.stderr
    client = mlflow.MlflowClient(team)
    listed = json.loads(cli("environments", "--json").stdout)["environments"]
    assert (listed["dev"]["model"], listed["production"]["model"]) == ("News/2", "News/1")
    assert int(client.get_model_version_by_alias("News", "production").version) == 1
    assert int(client.get_model_version_by_alias("News", "dev").version) == 2
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] not in refused.stderr

    # Nor is what was accepted there before, if it is not now.
    configure(2, labelled_file)
    assert _run_pipeline(cli, "News@dev", "--to", "production")["previous"] == "News/1"
    configure(2, swapped)
    refused = cli("pipeline", "News/1", "--to", "production", timeout_s=400)
    assert (refused.returncode, "News/2 answers again" in refused.stderr) == (1, True), refused.stderr


@long
def test_a_pipeline_killed_while_it_trains_goes_on(
    team: str,
    engine: Engine,
    registry: Registry,
    configure: Callable[..., None],
    cli: Cli,
    labelled_file: Path,
    tmp_path: Path,
) -> None:
    import mlflow

    configure(2, labelled_file, epochs=400)
    _kill_in_training(tmp_path, cli)
    result = _run_pipeline(cli, "--to", "dev")
    assert result["model"] == "News/1"
    client = mlflow.MlflowClient(team)
    experiment = client.get_experiment_by_name("newsbert")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.run_id for run in runs] == [result["run_id"]]


def _run_pipeline(cli: Cli, *arguments: str) -> dict[str, Any]:
    done = cli("pipeline", *arguments, "--json", timeout_s=600)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _kill_in_training(directory: Path, cli: Cli) -> None:
    """Kill a pipeline for dev once the training has a checkpoint, and then the container, which goes on by itself."""
    import docker

    process = subprocess.Popen(
        [sys.executable, "-m", "newsbert", "pipeline", "--to", "dev"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(directory.glob("bundles/.*.partial-*/checkpoints/checkpoint-*")):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.kill()
    process.communicate()
    early = cli("pipeline", "--to", "dev")
    assert (early.returncode, "of an earlier pipeline is still being trained" in early.stderr) == (1, True), (
        early.stderr
    )
    with contextlib.closing(docker.from_env()) as client:
        (trainer,) = (container for container in client.containers.list() if "train" in (container.attrs["Args"] or []))
        trainer.remove(force=True)
