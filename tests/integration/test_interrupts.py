"""What is left when a training is cut short: by Ctrl+C, a kill or a full disk."""

import contextlib
import json
import shutil
import signal
import sqlite3
from pathlib import Path

import mlflow
import pytest

from newsbert.bundle.bundle import Bundle
from tests.support.cli import Cli, long, wait_for_checkpoint
from tests.support.training import Start, arguments, left_behind, start, wait_for

__all__ = ["arguments", "start"]

Arguments = tuple[object, ...]
PAUSE = 40
"""The step after which a training waits, at the end of its fourth epoch."""

LIMIT_FILES = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (BYTES, resource.RLIM_INFINITY))"
"""Any file that grows beyond this fails with EFBIG: as on a full disk, for users other than root."""


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=long)])
def test_ctrl_c_once_finishes_the_bundle(
    start: Start, arguments: Arguments, database: str, tmp_path: Path, number: signal.Signals
) -> None:
    process = start(*arguments, "--json", pause_after=PAUSE)
    wait_for(process, "(epoch 3.")
    process.send_signal(number)
    wait_for(process, "stopping after this step")
    (tmp_path / "go").touch()
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stdout + stderr
    document = json.loads(stdout)
    assert document["stopped_early"] is True
    Bundle.read(tmp_path / document["bundle"]).verify()
    assert left_behind(tmp_path) == [document["run_id"]]


def test_ctrl_c_twice_aborts_and_leaves_nothing(
    start: Start, arguments: Arguments, database: str, cli: Cli, tmp_path: Path
) -> None:
    process = start(*arguments, "--output-dir", "bundles/news", pause_after=PAUSE)
    wait_for(process, "(epoch 3.")
    other = cli(*arguments, "--output-dir", "bundles/news")
    assert other.returncode == 2, other.stderr
    assert "--output-dir bundles/news is what another training under way is to become" in other.stderr
    process.send_signal(signal.SIGINT)
    wait_for(process, "stopping after this step")
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    assert left_behind(tmp_path) == []
    client = mlflow.MlflowClient(database)
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert run.info.status == "KILLED"


def test_a_killed_training_goes_on_and_a_living_one_is_let_alone(
    start: Start, arguments: Arguments, database: str, cli: Cli, tmp_path: Path
) -> None:
    living = start(*arguments, pause_after=PAUSE)
    wait_for_checkpoint(tmp_path, living, 1)
    killed = start(*arguments, pause_after=PAUSE)
    wait_for_checkpoint(tmp_path, killed, 2)
    wait_for(killed, "(epoch 3.")
    killed.kill()
    killed.communicate(timeout=30)
    assert len(set(left_behind(tmp_path))) == 2
    third = cli(*arguments, "--json")
    assert third.returncode == 0, third.stderr
    whole = json.loads(third.stdout)
    client = mlflow.MlflowClient(database)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = {run.info.status: run.info.run_id for run in client.search_runs(experiments)}
    assert sorted(runs) == ["FINISHED", "KILLED", "RUNNING"]
    killed_id, living_id = runs["KILLED"], runs["RUNNING"]
    assert killed_id in third.stderr
    assert "newsbert train --resume" in third.stderr
    busy = cli("train", "--json", "--resume", living_id)
    assert busy.returncode == 2
    assert "another process" in json.loads(busy.stdout)["error"]["message"]
    # As if the last metrics had still been on their way when it was killed.
    with contextlib.closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as connection, connection:
        for table in ("metrics", "latest_metrics"):
            connection.execute(f"DELETE FROM {table} WHERE run_uuid = ? AND key = 'train_loss'", (killed_id,))
    resumed = cli("train", "--json", "--resume", killed_id[:8])
    assert resumed.returncode == 0, resumed.stderr
    # The same seed: what was killed ends as what never was.
    gone_on = json.loads(resumed.stdout)
    assert gone_on["run_id"] == killed_id
    assert gone_on["metrics"] == whole["metrics"]
    assert client.get_run(killed_id).info.status == "FINISHED"
    histories = [client.get_metric_history(run_id, "train_loss") for run_id in (killed_id, whole["run_id"])]
    assert [(loss.step, loss.value) for loss in histories[0]] == [(loss.step, loss.value) for loss in histories[1]]
    assert len(histories[0]) == 100
    # The living one was not disturbed, and has its working directory.
    assert living.poll() is None
    finished = {whole["run_id"], gone_on["run_id"]}
    (left,) = set(left_behind(tmp_path)) - finished
    assert left.startswith(f".{living_id}.partial-")


@long
def test_a_training_that_is_killed_before_any_checkpoint_begins_again_in_its_run(
    start: Start, arguments: Arguments, cli: Cli, tmp_path: Path
) -> None:
    killed = start(*arguments, pause_after=1)
    wait_for(killed, "training ")  # after its first step: there is no checkpoint
    killed.kill()
    killed.communicate(timeout=30)
    (left,) = set(left_behind(tmp_path))
    assert not list(tmp_path.glob("bundles/.*/checkpoints/checkpoint-*"))
    other = cli(*arguments, "--json")
    assert other.returncode == 0, other.stderr
    assert f"newsbert train --resume bundles/{left} goes on with it; or remove that directory" in other.stderr
    # As if it had been killed before its parameters were logged.
    (run_id,) = (tmp_path / "bundles" / left / "lock").read_text(encoding="utf-8").split()
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute("DELETE FROM params WHERE run_uuid = ?", (run_id,))
    resume = ("train", "--json", "--resume", run_id[:8])
    elsewhere = cli(*resume, "--tracking-uri", f"sqlite:///{tmp_path / 'other.db'}")
    assert elsewhere.returncode == 1, elsewhere.stderr
    assert left in left_behind(tmp_path)  # it has no such run, and nothing is lost
    resumed = cli(*resume)
    assert resumed.returncode == 0, resumed.stderr
    resumed_run, whole = json.loads(resumed.stdout), json.loads(other.stdout)
    assert (resumed_run["run_id"], resumed_run["metrics"]) == (run_id, whole["metrics"])
    runs = [client.get_run(document["run_id"]) for document in (resumed_run, whole)]
    assert runs[0].info.status == "FINISHED"
    assert runs[0].data.params == runs[1].data.params
    assert [len(run.inputs.dataset_inputs) for run in runs if run.inputs] == [3, 3]
    histories = [client.get_metric_history(run.info.run_id, "train_loss") for run in runs]
    assert [(loss.step, loss.value) for loss in histories[0]] == [(loss.step, loss.value) for loss in histories[1]]
    assert set(left_behind(tmp_path)) == {resumed_run["run_id"], whole["run_id"]}


@long
def test_a_disk_that_fills_up_at_a_later_checkpoint_leaves_the_one_before_to_go_on_from(
    start: Start, arguments: Arguments, cli: Cli, tmp_path: Path
) -> None:
    process = start(*arguments, "--json", pause_after=PAUSE, before=FULL_LATER)
    (tmp_path / "go").touch()
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 1, stderr
    error = json.loads(stdout)["error"]
    assert "cannot hold it" in error["message"]
    (left,) = set(left_behind(tmp_path))
    assert error["hint"] == f"make room, then go on: newsbert train --resume bundles/{left}"
    assert "Traceback" not in stderr
    assert len(list(tmp_path.glob("bundles/.*/checkpoints/checkpoint-*"))) == 1
    resumed, whole = cli("train", "--json", "--resume", f"bundles/{left}"), cli(*arguments, "--json")
    assert resumed.returncode == whole.returncode == 0, resumed.stderr + whole.stderr
    assert json.loads(resumed.stdout)["metrics"] == json.loads(whole.stdout)["metrics"]


FULL_LATER = f"""
from newsbert.training.checkpoints import Checkpoints

save = Checkpoints.save

def fill(*arguments):
    save(*arguments)
    {LIMIT_FILES.replace("BYTES", "100_000")}

Checkpoints.save = fill
"""


def test_artifacts_that_cannot_be_written_are_an_error_before_any_training(
    arguments: Arguments, database: str, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "mlruns").write_text("no directory")
    run = cli(*arguments)
    assert run.returncode == 1
    assert "artifacts cannot be written" in run.stderr
    assert str(tmp_path / "mlruns") in run.stderr
    assert "Traceback" not in run.stderr
    assert "tokenizing" not in run.stderr
    assert left_behind(tmp_path) == []
    client = mlflow.MlflowClient(database)
    (logged,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert logged.info.status == "FAILED"


def test_a_disk_that_is_full_is_an_error_and_leaves_nothing(
    start: Start, arguments: Arguments, tiny_encoder: Path, database: str, tmp_path: Path
) -> None:
    encoder = ("--base-model", _widened(tiny_encoder, tmp_path))
    run = start(*arguments, *encoder, before=LIMIT_FILES.replace("BYTES", str(2 * 1024 * 1024)))
    _, stderr = run.communicate(timeout=300)
    assert run.returncode == 1, stderr
    assert "cannot hold it" in stderr
    assert "Traceback" not in stderr
    assert left_behind(tmp_path) == []


def _widened(encoder: Path, directory: Path) -> Path:
    """An encoder whose weights are more than 2 MB."""
    from transformers import BertConfig, BertModel

    wide = directory / "wide-bert"
    shutil.copytree(encoder, wide)
    config = BertConfig.from_pretrained(encoder)
    config.update({"intermediate_size": 16_384})
    BertModel(config).save_pretrained(wide)
    return wide
