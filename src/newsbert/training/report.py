"""Report of a training to its run: parameters, metrics, tables, images."""

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from newsbert.bundle.bundle import Bundle
from newsbert.core.events import Evaluation, Event, Step
from newsbert.core.settings import TrainSettings
from newsbert.core.version import __version__
from newsbert.data.dataset import Dataset
from newsbert.tracking import upload
from newsbert.tracking.runs import DATA_DIGEST_TAG, STOPPED_EARLY_TAG
from newsbert.training.base_model import BaseModel

if TYPE_CHECKING:
    from newsbert.tracking.runs import RunLogger
    from newsbert.training.baseline import BaselineReport
    from newsbert.training.export.bundle import TestReport
    from newsbert.training.fine_tuning import TrainedModel
    from newsbert.training.label_issues import LabelIssue


_SUSPECTS, _MISTAKES = "suspected_label_errors.json", "misclassified_examples.json"


def describe(run: "RunLogger", params: dict[str, Any], name: str, rows: Dataset) -> None:
    """Log the data that is known before training: parameters, and the rows under this name."""
    run.tags({"newsbert.version": __version__, DATA_DIGEST_TAG: rows.digest})
    splits = {"train": len(rows.train), "validation": len(rows.validation), "test": len(rows.test)}
    run.params(params)
    run.dataset(name, rows.digest, splits)


def log_event(run: "RunLogger", event: Event) -> None:
    """Log the metrics of an event."""
    if isinstance(event, Evaluation):
        scores = {"accuracy": event.accuracy, "f1_macro": event.f1_macro, "loss": event.loss}
        run.metrics({f"validation_{name}": value for name, value in scores.items()}, event.step)
    elif isinstance(event, Step) and event.report and event.loss is not None:
        run.metrics({"train_loss": event.loss, "learning_rate": event.learning_rate or 0.0}, event.step)


def write_log(
    run_id: str,
    finished: Bundle,
    tested: "TestReport",
    trained: "TrainedModel",
    baseline: "BaselineReport",
    suspects: "list[LabelIssue]",
) -> None:
    """Write the log data of a finished training: metrics, tags, images and reports."""
    tags = {STOPPED_EARLY_TAG: str(trained.stopped_early).lower(), "newsbert.precision": trained.precision}
    if trained.diverged_at is not None:
        tags["newsbert.diverged_at"] = str(trained.diverged_at)
    tables = {_MISTAKES: tested.mistakes, _SUSPECTS: suspects}
    # MLflow displays the artifacts in this tag as tables.
    tags["mlflow.loggedArtifacts"] = json.dumps([{"path": name, "type": "table"} for name in tables if tables[name]])
    training_metrics = {
        "training_seconds": trained.seconds,
        "best_step": float(trained.best_step),
        "texts_per_second": tested.texts_per_second,
        **{f"baseline_{name}": value for name, value in baseline.metrics.items()},
        "suspected_label_errors": float(len(suspects)),
    }
    directory = upload.write(finished, run_id, upload.metrics_of(finished) | training_metrics, tags)
    (directory / "classification_report.json").write_text(tested.scores.report(), encoding="utf-8")
    for name, issues in tables.items():  # only in the run, never in the bundle: they are the user's rows
        if issues:
            rows = [dataclasses.asdict(issue) for issue in issues]
            table = {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}
            (directory / name).write_text(json.dumps(table), encoding="utf-8")
    parameters = sum(parameter.numel() for parameter in trained.model.parameters())
    tuned = sum(parameter.numel() for parameter in trained.model.parameters() if parameter.requires_grad)
    summary = f"{trained.model}\n\n{parameters:,} parameters, {tuned:,} of them trained\n"
    (directory / "model_summary.txt").write_text(summary, encoding="utf-8")


def make_params(settings: TrainSettings, base: BaseModel, rows: Dataset) -> dict[str, Any]:
    """Return the resolved configuration as MLflow parameters."""
    values = dataclasses.asdict(settings)
    values["labels"] = ",".join(rows.label_names)
    num_rows = len(rows.train)
    values["learning_rate"] = settings.choose_learning_rate(num_rows)
    values["epochs"], values["batch_size"] = settings.choose_epochs(num_rows), settings.choose_batch_size(num_rows)
    return {**values, "base_model_name": base.name, "base_model_sha256": base.sha256, "train_rows": num_rows}
