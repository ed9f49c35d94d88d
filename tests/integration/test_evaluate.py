"""Evaluations and the list of runs on a real MLflow database."""

import json
import re
import shutil
from pathlib import Path

import mlflow
import pytest

import newsbert
from newsbert.bundle.bundle import Bundle
from newsbert.core.events import Event, Note
from newsbert.errors import NotFoundError, TrackingError, UsageError
from newsbert.tracking import experiment, locate, registry, run_list
from tests.support.cli import Cli
from tests.support.tiny_model import LABELS


@pytest.fixture
def other_rows(tmp_path: Path) -> Path:
    """Rows of two of the three classes, one of them with a label that is surely wrong."""
    file = tmp_path / "other.csv"
    lines = [
        "goal team number 0,World",
        *["goal team number 0,Sport & loisirs"] * 3,
        *["minister border number 0,World"] * 2,
    ]
    file.write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
    return file


def test_an_evaluation_is_logged_with_the_model_that_it_is_of(
    trained: tuple[newsbert.TrainResult, str], other_rows: Path
) -> None:
    import mlflow

    training, uri = trained
    result = newsbert.evaluate("TinyModel/1", str(other_rows), compare_to=training.run_id, tracking_uri=uri)
    assert (result.rows, result.model.name, result.split) == (6, "TinyModel/1", "")
    assert result.model.scores.accuracy == pytest.approx(5 / 6)
    client = mlflow.MlflowClient(uri)
    assert result.run_id is not None
    run = client.get_run(result.run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "evaluate TinyModel/1")
    assert run.data.tags["newsbert.evaluated"] == "TinyModel/1"
    assert run.data.tags["newsbert.evaluated_digest"] == Bundle.read(training.bundle).digest
    assert run.data.metrics["accuracy"] == pytest.approx(5 / 6)
    assert run.data.metrics["accuracy_low"] == result.model.accuracy.low
    assert run.data.metrics["mcnemar_p"] == 1
    assert run.inputs is not None
    (rows,) = run.inputs.dataset_inputs
    assert rows.dataset.digest == result.data_digest[:32]
    assert {file.path for file in client.list_artifacts(result.run_id)} == {
        "classification_report.json",
        "confusion_matrix.png",
    }
    model_id = locate.locate("TinyModel/1", tracking_uri=uri).model_id
    assert model_id is not None
    linked = {
        metric.key: metric
        for metric in client.get_logged_model(model_id).metrics or []
        if metric.run_id == result.run_id
    }
    assert linked["accuracy"].value == pytest.approx(5 / 6)
    assert linked["accuracy"].dataset_digest == rows.dataset.digest
    assert "other_accuracy" not in linked


def test_an_evaluation_is_not_taken_for_a_training(
    trained: tuple[newsbert.TrainResult, str], other_rows: Path, cli: Cli
) -> None:
    training, uri = trained
    done = cli("evaluate", "TinyModel/1", "--data", other_rows, "--tracking-uri", uri, "--json")
    evaluation = json.loads(done.stdout)["run_id"]  # logged unless --no-log
    assert evaluation
    tracker = locate.connect(uri)
    latest = tracker.latest_run()
    assert latest is not None
    assert latest.info.run_id == training.run_id
    assert [run.run_id for run in run_list.training_runs(tracker, 20)] == [training.run_id]
    with pytest.raises(TrackingError, match="is no newsbert model"):
        registry.register(tracker, evaluation, "TinyModel")


def test_runs_are_listed_with_scores_and_versions(trained: tuple[newsbert.TrainResult, str], cli: Cli) -> None:
    training, uri = trained
    registry.register(locate.connect(uri), training.run_id, "TinyModel", "champion")
    document = json.loads(cli("runs", "--tracking-uri", uri, "--json").stdout)
    (run,) = document["runs"]
    assert (document["experiment"], run["run_id"], run["status"]) == ("newsbert", training.run_id, "finished")
    (listed,) = (version for version in run["versions"] if version["model"] == "TinyModel/1")
    assert "champion" in listed["aliases"]  # a test of a deployment may have set others
    assert {name: run["metrics"][f"test_{name}"] for name in training.metrics} == training.metrics
    assert run["params"]["epochs"] == "25.0"
    assert not any(name.startswith("system/") for name in run["metrics"])
    table = cli("runs", "--tracking-uri", uri, COLUMNS="80").stdout
    assert training.run_id[:8] in table
    assert f"{training.metrics['accuracy']:.4f}" in table
    assert max(map(len, table.splitlines())) <= 80
    none = cli("runs", "--tracking-uri", uri, "--experiment", "nothing")
    assert (none.returncode, none.stdout) == (0, "")
    assert "no training runs in the experiment 'nothing'" in none.stderr


def test_runs_that_lack_something_are_listed_too(
    trained: tuple[newsbert.TrainResult, str], cli: Cli, tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    registered = cli("register", trained[0].bundle, "--model-name", "Late", "--tracking-uri", uri, "--json")
    assert registered.returncode == 0, registered.stderr
    tracker = locate.connect(uri)
    digest = {"newsbert.data_digest": "0" * 64}
    failed, stopped = (
        experiment.create_run(tracker, {**digest, **tags}) for tags in ({}, {"newsbert.stopped_early": "true"})
    )
    client = mlflow.MlflowClient(uri)
    client.set_terminated(failed, "FAILED")
    client.log_param(stopped, "epochs", "many")
    client.log_param(stopped, "data", "\x1b[31mred.csv")
    client.log_metric(stopped, "training_seconds", float("nan"))
    lines = cli("runs", "--tracking-uri", uri, COLUMNS="200").stdout.splitlines()
    (bundle,) = (line for line in lines if "Late/1" in line)
    assert json.loads(registered.stdout)["run_id"][:8] in bundle
    assert f"{trained[0].metrics['accuracy']:.4f}" in bundle
    assert " rows of " in bundle
    (row,) = (line for line in lines if failed[:8] in line)
    assert [cell.strip() for cell in row.split("│")[3:-1]] == ["", "", "", ""]
    (row,) = (line for line in lines if stopped[:8] in line)
    assert "red.csv, many epochs, stopped early" in row
    assert "\x1b" not in row


def test_the_beginning_of_a_runs_id_is_enough(trained: tuple[newsbert.TrainResult, str]) -> None:
    import mlflow

    training, uri = trained
    assert locate.locate(training.run_id[:8], tracking_uri=uri).run_id == training.run_id
    assert registry.register(locate.connect(uri), training.run_id[:12], "TinyModel").run_id == training.run_id
    with pytest.raises(NotFoundError, match="there is no run 'fffffff'"):
        locate.locate("fffffff", tracking_uri=uri)
    # A registered model of such a name comes first.
    registry.register(locate.connect(uri), training.run_id, training.run_id[:8])
    try:
        assert locate.locate(training.run_id[:8], tracking_uri=uri).version == "1"
    finally:
        mlflow.MlflowClient(uri).delete_registered_model(training.run_id[:8])


def test_a_beginning_of_several_runs_names_them(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracker = locate.connect(uri, create=True)
    run_ids: list[str] = []
    for _ in range(2):
        with experiment.start_run(tracker, system_metrics=False) as run:
            run_ids.append(run.run_id)
    import sqlite3

    # Ids are random: give both the same beginning.
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        for number, run_id in enumerate(run_ids):
            connection.execute(
                "UPDATE runs SET run_uuid = ? WHERE run_uuid = ?", (f"abcdef0{number}".ljust(32, "0"), run_id)
            )
    with pytest.raises(UsageError, match=r"several runs begin with 'abcdef0': abcdef0\d0+, abcdef0\d0+"):
        locate.locate("abcdef0", tracking_uri=uri)


def test_a_server_that_fails_after_the_scores_are_known_costs_a_note(
    trained: tuple[newsbert.TrainResult, str], other_rows: Path, tmp_path: Path
) -> None:
    training, uri = trained
    database = tmp_path / "gone.db"
    shutil.copyfile(re.sub(r"^sqlite:///", "", uri), database)
    events: list[Event] = []

    def on_event(event: Event) -> None:
        events.append(event)
        if len(events) == 2:  # while it scores
            database.write_bytes(b"this is no database any more")

    result = newsbert.evaluate(
        training.bundle, str(other_rows), tracking_uri=f"sqlite:///{database}", on_event=on_event
    )
    assert result.run_id is None
    assert result.model.scores.accuracy == pytest.approx(5 / 6)
    assert any(isinstance(event, Note) and event.message.startswith("not logged: ") for event in events)
    assert set(result.model.scores.per_class) == set(LABELS)
