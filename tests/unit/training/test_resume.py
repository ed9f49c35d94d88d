"""A training that ended before it was done, and goes on: whatever is tuned, and wherever it ended."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest

import newsbert
from newsbert.core import locks
from newsbert.core.events import Event, Step
from newsbert.errors import NotFoundError, UsageError
from newsbert.training import run_dir
from newsbert.training.trainer import Trainer

Train = Callable[..., newsbert.TrainResult]


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """MLflow keeps a connection by this, and pytest's directories have the same names again."""
    return f"sqlite:///{tmp_path / uuid.uuid4().hex}.db"


@pytest.fixture
def train(uri: str, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Train with a checkpoint at every evaluation."""
    monkeypatch.setattr(Trainer, "min_checkpoint_interval_s", 0.0)

    def run(**settings: Any) -> newsbert.TrainResult:
        return newsbert.train(tracking_uri=uri, **settings)

    return run


def _cut(event: Event) -> None:
    if isinstance(event, Step) and event.step == 60:
        raise RuntimeError("cut")


@pytest.mark.parametrize(("tune", "precision"), [("full", "bf16"), ("lora", "bf16"), ("head", "fp32")])
def test_it_ends_as_one_that_was_never_cut(
    train: Train, uri: str, tune: str, precision: str, tiny_encoder: Path, labelled_file: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "data": str(labelled_file), "base_model": str(tiny_encoder), "tune": tune, "precision": precision,
        "epochs": 10, "batch_size": 8, "max_length": 48, "learning_rate": 3e-3,
    }  # fmt: skip
    whole = train(**settings)
    with pytest.raises(RuntimeError, match="cut") as caught:
        train(**settings, on_event=_cut)
    assert "it can go on from its latest checkpoint" in caught.value.__notes__[0]
    (left,) = (tmp_path / "bundles").glob(".*.partial-*")
    seen: list[int] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Step):
            seen.append(event.step)

    gone_on = train(resume=str(left), on_event=on_event)
    assert seen[0] > 40  # from the checkpoint, and not from the beginning
    assert gone_on.metrics == whole.metrics
    client = mlflow.MlflowClient(uri)
    for metric in ("train_loss", "validation_loss"):
        ways = [
            [(each.step, each.value) for each in client.get_metric_history(result.run_id, metric)]
            for result in (whole, gone_on)
        ]
        assert ways[0] == ways[1]
    assert not list((tmp_path / "bundles").glob(".*"))


def test_there_is_nothing_to_go_on_with(train: Train) -> None:
    with pytest.raises(NotFoundError, match="nothing of a run 'abcdef' in bundles to go on with"):
        train(resume="abcdef")


def test_something_else_is_where_its_bundle_belongs(
    train: Train, tiny_encoder: Path, labelled_file: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "data": str(labelled_file), "base_model": str(tiny_encoder), "output_dir": "out", "batch_size": 8,
        "max_length": 48, "epochs": 10,
    }  # fmt: skip
    with pytest.raises(RuntimeError, match="cut"):
        train(**settings, on_event=_cut)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    (left,) = tmp_path.glob(".out.partial-*")
    with pytest.raises(UsageError, match=r"there is something in .*out by now"):
        train(resume=str(left))
    (tmp_path / "out" / "mine").unlink()
    assert train(resume=str(left)).bundle == tmp_path / "out"


def test_a_run_that_was_begun_before_is_not_begun_again(
    train: Train, uri: str, tiny_encoder: Path, labelled_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"data": str(labelled_file), "base_model": str(tiny_encoder), "max_length": 48}
    with pytest.raises(RuntimeError, match="cut"):
        train(**settings, batch_size=8, epochs=10, on_event=_cut)
    (left,) = (tmp_path / "bundles").glob(".*.partial-*")
    run_id, client = run_dir.read(left).run_id, mlflow.MlflowClient(uri)
    client.update_run(run_id, "RUNNING")  # as one is that was killed, or lives
    # As what starts a container again does it.
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    with run_dir.locked(left), pytest.raises(UsageError, match="is being trained by another process"):
        train(**settings, batch_size=8, epochs=10)
    assert client.get_run(run_id).info.status == "RUNNING"
    with pytest.raises(UsageError, match="was begun before") as caught:
        train(**settings, batch_size=8, epochs=10)
    assert f"newsbert train --resume bundles/{left.name}" in str(caught.value.hint)
    assert left.is_dir()
    monkeypatch.delenv("MLFLOW_RUN_ID")
    train(resume=str(left))
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    with pytest.raises(UsageError, match=f"bundles/{run_id} is there already"):
        train(**settings, batch_size=8, epochs=10)
    assert client.get_run(run_id).info.status == "FINISHED"


def test_what_a_training_left_that_was_killed_as_it_ended_is_gone_with_its_registration(
    uri: str, tiny_encoder: Path, labelled_file: Path, tmp_path: Path
) -> None:
    script = (
        "import os, newsbert; from newsbert.tracking import upload; upload.deliver = lambda *of: os._exit(9); "
        f"newsbert.train(data={str(labelled_file)!r}, base_model={str(tiny_encoder)!r}, max_length=48, max_steps=3)"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path, env={**os.environ, "MLFLOW_TRACKING_URI": uri}, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert killed.returncode == 9, killed.stderr
    (left,) = (tmp_path / "bundles").glob(".*.partial-*")
    run_id = run_dir.read(left).run_id
    assert newsbert.register(str(tmp_path / "bundles" / run_id), "Late", tracking_uri=uri).run_id == run_id
    assert not left.exists()
    assert newsbert.load("Late/1", tracking_uri=uri).predict(["goal team"])


def test_a_training_whose_note_is_broken_stays_and_stops_nobody(tmp_path: Path) -> None:
    broken = tmp_path / ".out.partial-0123abcd"
    broken.mkdir()
    locks.acquire(broken, "0" * 32).close()
    (broken / "run.json").write_text("{}")
    assert run_dir.find_interrupted(tmp_path) == {}
    assert broken.is_dir()
