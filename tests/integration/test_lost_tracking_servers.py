"""Trainings whose tracking server cannot be reached, or goes away in the middle: nothing is lost."""

import json
import shutil
import signal
import time
from pathlib import Path

import mlflow
import pytest

from newsbert.bundle.bundle import Bundle
from tests.support.calls import free_port
from tests.support.cli import Cli
from tests.support.servers import tracking_server
from tests.support.training import Start, arguments, left_behind, start, wait_for

__all__ = ["arguments", "start"]

Arguments = tuple[object, ...]
PAUSE = 40
"""The step after which a training waits, at the end of its fourth epoch."""


@pytest.fixture
def _impatient(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow pauses for 14 s over three attempts; and its server has its tables."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    shutil.copy(empty_database, tmp_path / "server.db")


def test_an_unreachable_tracking_server_is_an_error_before_any_training(
    arguments: Arguments, cli: Cli, tmp_path: Path
) -> None:
    started = time.monotonic()
    run = cli(*arguments, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert run.returncode == 1
    assert "http://127.0.0.1:9 cannot be reached" in run.stderr
    assert time.monotonic() - started < 60
    assert left_behind(tmp_path) == []


@pytest.mark.usefixtures("_impatient")
def test_a_tracking_server_that_goes_away_and_comes_back_gets_all_metrics_and_the_model(
    start: Start, arguments: Arguments, tmp_path: Path
) -> None:
    port = free_port()
    with tracking_server(tmp_path, port, signal.SIGKILL) as url:
        process = start(*arguments, "--tracking-uri", url, pause_after=PAUSE)
        wait_for(process, "(epoch 3.")
    (tmp_path / "go").touch()
    wait_for(process, "does not answer", "trying again")
    with tracking_server(tmp_path, port, signal.SIGKILL) as url:
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
        client = mlflow.MlflowClient(url)
        (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
        assert run.info.status == "FINISHED"
        steps = [loss.step for loss in client.get_metric_history(run.info.run_id, "train_loss")]
        assert steps == sorted(set(steps))
        assert len(steps) == 100
        assert run.data.metrics["test_accuracy"] > 0
        assert client.search_logged_models([run.info.experiment_id])


@pytest.mark.usefixtures("_impatient")
def test_a_model_that_could_not_be_logged_is_when_it_is_registered(
    start: Start, arguments: Arguments, cli: Cli, tmp_path: Path
) -> None:
    port = free_port()
    hasty = "from newsbert.tracking import upload; upload._PAUSES_S, upload._METRICS_S = (1,), 1.0"
    with tracking_server(tmp_path, port, signal.SIGKILL) as url:
        options = ("--json", "--output-dir", "bundle", "--tracking-uri", url)
        process = start(*arguments, *options, pause_after=PAUSE, before=hasty)
        wait_for(process, "(epoch 3.")
    (tmp_path / "go").touch()
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 1, stderr
    error = json.loads(stdout)["error"]
    assert "the model is finished and in" in error["message"]
    assert "newsbert register" in error["hint"]
    bundle = Bundle.read(tmp_path / "bundle")
    bundle.verify()
    with tracking_server(tmp_path, port, signal.SIGKILL) as url:
        for created in (True, False):
            done = cli("register", "bundle", "--model-name", "Late", "--json", "--tracking-uri", url)
            assert done.returncode == 0, done.stderr
            document = json.loads(done.stdout)
            assert (document["model"], document["created"]) == ("Late/1", created)
        client = mlflow.MlflowClient(url)
        run = client.get_run(document["run_id"])
        assert run.info.status == "FINISHED"
        assert run.data.metrics["test_accuracy"] == bundle.contract.metrics["accuracy"]
        steps = [loss.step for loss in client.get_metric_history(run.info.run_id, "train_loss")]
        assert len(steps) == len(set(steps)) == 100
        names = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert {"classification_report.json", "model_summary.txt", "learning_curves.png"} <= names
    assert [path.name for path in tmp_path.glob(".bundle*")] == []
