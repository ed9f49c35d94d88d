"""Trainings in several processes: the same as in one, whatever dies."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from newsbert.bundle.bundle import Bundle
from newsbert.training import trainer
from tests.support import processes
from tests.support.cli import Cli, long, wait_for_checkpoint

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
ROWS = 90
"""Of the labelled file, of which a tenth are validation rows."""
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs newsbert[ray]")


@pytest.fixture
def encoder(tiny_encoder: Path, tmp_path: Path) -> Path:
    """The tiny encoder without dropout, which every process draws for itself."""
    directory = tmp_path / "encoder"
    shutil.copytree(tiny_encoder, directory)
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return directory


def arguments(encoder: Path, rows: Path, epochs: int, *more: str) -> list[str]:
    return [
        *("train", "--data", str(rows), "--base-model", str(encoder), "--epochs", str(epochs)),
        # What a gradient is in bf16 depends on the batch it is computed in, which is not the same for two workers.
        *("--batch-size", "8", "--learning-rate", "1e-3", "--max-length", "48", "--precision", "fp32", "--json", *more),
    ]


def start(command: Sequence[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "NO_COLOR": "1"}
    )


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """The same scores, and the same losses on the way there."""
    assert other["metrics"]["accuracy"] == one["metrics"]["accuracy"]
    assert other["metrics"]["loss"] == pytest.approx(one["metrics"]["loss"], abs=1e-3)
    for name in ("train_loss", "validation_loss"):
        histories = [history(result, name) for result in (one, other)]
        assert [step for step, _ in histories[0]] == [step for step, _ in histories[1]]
        assert [value for _, value in histories[1]] == pytest.approx([value for _, value in histories[0]], abs=1e-3)


def history(result: dict[str, Any], metric: str) -> list[tuple[int, float]]:
    """Steps and values of a metric in the run."""
    import mlflow

    # MLflow caches a connection by its URI: a relative one would lead to the file of an earlier test.
    logged = mlflow.MlflowClient(f"sqlite:///{Path('mlflow.db').resolve()}").get_metric_history(
        result["run_id"], metric
    )
    return sorted((value.step, value.value) for value in logged)


@needs_ray
@long
def test_workers_of_which_one_dies_and_then_all_train_as_one_process_does(
    encoder: Path, labelled_file: Path, cli: Cli, tmp_path: Path
) -> None:
    whole = cli(*arguments(encoder, labelled_file, 300))
    assert whole.returncode == 0, whole.stderr
    process = start([sys.executable, "-m", "newsbert", *arguments(encoder, labelled_file, 300, "--ray-workers", "2")])
    wait_for_checkpoint(tmp_path, process)
    victims = processes.with_command("RayTrainWorker", processes.children(process.pid))
    assert len(victims) == 2
    victims[1].kill()
    assert process.stderr is not None
    lines = iter(process.stderr)
    assert any("a worker died: all were started again, and go on from the latest checkpoint" in line for line in lines)
    process.kill()
    process.communicate()
    (left,) = tmp_path.glob("bundles/.*.partial-*")
    result = cli("train", "--json", "--resume", left)
    assert result.returncode == 0, result.stderr
    assert_same(json.loads(whole.stdout), json.loads(result.stdout))


@long
@needs_ray
def test_workers_finish_their_step_at_ctrl_c_and_the_best_is_exported(
    encoder: Path, labelled_file: Path, tmp_path: Path
) -> None:
    process = start([sys.executable, "-m", "newsbert", *arguments(encoder, labelled_file, 5000, "--ray-workers", "2")])
    wait_for_checkpoint(tmp_path, process)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    document = json.loads(stdout)
    assert document["stopped_early"]
    scores, accuracy = history(document, "validation_f1_macro"), dict(history(document, "validation_accuracy"))
    best, most = max(scores, key=lambda step_and_score: step_and_score[1])
    least = most - trainer.standard_error(accuracy[best], ROWS // 10)
    assert history(document, "best_step")[0][1] == [step for step, f1 in scores if f1 >= least][-1]
    Bundle.read(Path(document["bundle"])).verify()
    assert not list(tmp_path.glob("bundles/.*"))
    lines = [line for line in stderr.splitlines() if not line.startswith(("step ", "training ", "Note: "))]
    assert lines == ["loading …", "fitting the baseline …", "tokenizing …", "starting 2 workers …", *lines[4:]]
    assert lines[4].startswith("exporting")


def test_torchrun_and_workers_train_as_one_process_does(
    encoder: Path, labelled_file: Path, cli: Cli, tmp_path: Path
) -> None:
    alone = cli(*arguments(encoder, labelled_file, 2))
    assert alone.returncode == 0, alone.stderr
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    shared = subprocess.run(
        [*torchrun, "-m", "newsbert", *arguments(encoder, labelled_file, 2, "--tune", "full")],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert shared.returncode == 0, shared.stderr
    assert_same(json.loads(alone.stdout), json.loads(shared.stdout))
    assert shared.stderr.count("loading …") == 1
    assert len(list(tmp_path.glob("bundles/*"))) == 2
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs newsbert[ray]")
    workers = cli(*arguments(encoder, labelled_file, 2, "--ray-workers", "2"), timeout_s=600)
    assert workers.returncode == 0, workers.stderr
    assert "starting 2 workers" in workers.stderr
    assert_same(json.loads(alone.stdout), json.loads(workers.stdout))


def test_trainings_that_cannot_be_distributed_are_errors(encoder: Path, labelled_file: Path, cli: Cli) -> None:
    call = arguments(encoder, labelled_file, 1)
    for more, message in (
        (("--ray-workers", "999"), "999 workers need as many cores"),
        (("--ray-address", "auto"), "--ray-address goes with --ray-workers"),
        (("--ray-workers", "2", "--tune", "head"), "--tune head is done by one process"),
        (("--ray-workers", "2", "--in-container"), "--ray-workers is for training without a container"),
    ):
        result = cli(*call, *more)
        assert result.returncode == 2, result.stderr
        assert message in json.loads(result.stdout)["error"]["message"]
    assert not Path("bundles").exists() or not list(Path("bundles").iterdir())
