"""A training that ended before it was done, and goes on: whatever is tuned, and wherever it ended."""

from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch

import newsbert
from newsbert.core import locks
from newsbert.core.events import Event, Step
from newsbert.errors import NotFoundError, UsageError
from newsbert.training import run_dir
from newsbert.training.contrastive import ContrastiveTrainer
from newsbert.training.trainer import Trainer
from tests.support import tuning
from tests.support.cli import Cli
from tests.support.preloaded import BEFORE


@pytest.fixture(autouse=True)
def _checkpoint_at_every_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "min_checkpoint_interval_s", 0.0)
    monkeypatch.setattr(ContrastiveTrainer, "checkpoint_interval_s", 0.0)  # it evaluates its last step alone


@pytest.fixture
def settings(tiny_encoder: Path, labelled_file: Path) -> dict[str, Any]:
    return {
        "data": str(labelled_file), "base_model": str(tiny_encoder), "epochs": 10, "batch_size": 8, "max_length": 48,
    }  # fmt: skip


def _cut(event: Event) -> None:
    if isinstance(event, Step) and event.step == 60:
        raise RuntimeError("cut")


def test_it_ends_as_one_that_was_never_cut(database: str, settings: dict[str, Any], tmp_path: Path) -> None:
    settings |= {"precision": "bf16", "learning_rate": 3e-3}
    whole = newsbert.train(**settings)
    with pytest.raises(RuntimeError, match="cut") as caught:
        newsbert.train(**settings, on_event=_cut)
    assert "it can go on from its latest checkpoint" in caught.value.__notes__[0]
    (left,) = (tmp_path / "bundles").glob(".*.partial-*")
    seen: list[int] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Step):
            seen.append(event.step)

    gone_on = newsbert.train(resume=str(left), on_event=on_event)
    assert seen[0] > 40  # from the checkpoint, and not from the beginning
    assert gone_on.metrics == whole.metrics
    client = mlflow.MlflowClient(database)
    for metric in ("train_loss", "validation_loss"):
        ways = [
            [(entry.step, entry.value) for entry in client.get_metric_history(result.run_id, metric)]
            for result in (whole, gone_on)
        ]
        assert ways[0] == ways[1]
    assert not list((tmp_path / "bundles").glob(".*"))


@pytest.mark.parametrize(("method", "precision"), [("lora", "bf16"), ("head", "fp32"), ("contrastive", "bf16")])
def test_whatever_is_tuned_ends_as_if_it_was_never_cut(
    method: str, precision: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    settings |= {"tune": method, "precision": precision, "learning_rate": 3e-3}
    whole = tuning.tune(**settings)
    with pytest.raises(RuntimeError, match="cut"):
        tuning.tune(**settings, checkpoints=tmp_path / "checkpoints", on_event=_cut)
    seen: list[int] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Step):
            seen.append(event.step)

    gone_on = tuning.tune(**settings, checkpoints=tmp_path / "checkpoints", on_event=on_event)
    assert seen[0] > 40  # from the checkpoint, and not from the beginning
    assert tuning.losses(gone_on) == tuning.losses(whole)
    weights = gone_on.model.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in whole.model.state_dict().items())


def test_there_is_nothing_to_go_on_with(database: str) -> None:
    with pytest.raises(NotFoundError, match="nothing of a run 'abcdef' in bundles to go on with"):
        newsbert.train(resume="abcdef")


def test_something_else_is_where_its_bundle_belongs(database: str, settings: dict[str, Any], tmp_path: Path) -> None:
    settings["output_dir"] = "out"
    with pytest.raises(RuntimeError, match="cut"):
        newsbert.train(**settings, on_event=_cut)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    (left,) = tmp_path.glob(".out.partial-*")
    with pytest.raises(UsageError, match=r"there is something in .*out by now"):
        newsbert.train(resume=str(left))
    (tmp_path / "out" / "mine").unlink()
    assert newsbert.train(resume=str(left)).bundle == tmp_path / "out"


def test_a_run_that_was_begun_before_is_not_begun_again(
    database: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError, match="cut"):
        newsbert.train(**settings, on_event=_cut)
    (left,) = (tmp_path / "bundles").glob(".*.partial-*")
    run_id, client = run_dir.read(left).run_id, mlflow.MlflowClient(database)
    client.update_run(run_id, "RUNNING")  # as one is that was killed, or lives
    # As what starts a container again does it.
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    with run_dir.locked(left), pytest.raises(UsageError, match="is being trained by another process"):
        newsbert.train(**settings)
    assert client.get_run(run_id).info.status == "RUNNING"
    with pytest.raises(UsageError, match="was begun before") as caught:
        newsbert.train(**settings)
    assert f"newsbert train --resume bundles/{left.name}" in str(caught.value.hint)
    assert left.is_dir()
    monkeypatch.delenv("MLFLOW_RUN_ID")
    newsbert.train(resume=str(left))
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    with pytest.raises(UsageError, match=f"bundles/{run_id} is there already"):
        newsbert.train(**settings)
    assert client.get_run(run_id).info.status == "FINISHED"


def test_what_a_training_left_that_was_killed_as_it_ended_is_gone_with_its_registration(
    database: str, cli: Cli, tiny_encoder: Path, labelled_file: Path, tmp_path: Path
) -> None:
    die = "import os; from newsbert.tracking import upload; upload.deliver = lambda *of: os._exit(9)"
    arguments = ("--data", labelled_file, "--base-model", tiny_encoder, "--max-length", 48, "--max-steps", 3)
    killed = cli("train", *arguments, **{BEFORE: die})
    assert killed.returncode == 9, killed.stderr
    (left,) = (tmp_path / "bundles").glob(".*.partial-*")
    run_id = run_dir.read(left).run_id
    assert newsbert.register(str(tmp_path / "bundles" / run_id), "Late").run_id == run_id
    assert not left.exists()
    assert newsbert.load("Late/1").predict(["goal team"])


def test_a_training_with_a_broken_note_stays_and_stops_no_other(tmp_path: Path) -> None:
    broken = tmp_path / ".out.partial-0123abcd"
    broken.mkdir()
    locks.acquire(broken, "0" * 32).close()
    (broken / "run.json").write_text("{}")
    assert run_dir.find_interrupted(tmp_path) == {}
    assert broken.is_dir()
