"""`newsbert evaluate`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from newsbert.cli._completion import files, models
from newsbert.cli._options import Debug, Experiment, Json, Model, ModelOption, TrackingUri, setting
from newsbert.cli._output import Output, Progress
from newsbert.core.identifiers import SHORT_RUN_ID_DIGITS
from newsbert.core.settings import ServeSettings
from newsbert.errors import UsageError

if TYPE_CHECKING:
    from newsbert.api.evaluate import EvaluateResult, ModelComparison, ModelScores
    from newsbert.core.events import Event
    from newsbert.evaluation.significance import Interval

EXAMPLES = """
Examples:

    newsbert evaluate BertModel/2 --data other.csv

    newsbert evaluate BertModel/2 --data other.csv --compare-to BertModel/1

    newsbert evaluate bundles/RUN_ID --data test.jsonl --labels World,Sports,Business,Sci/Tech --no-log --json
"""
_MAX_CONFUSIONS = 3
_MAX_CLASSES = 50


def evaluate(
    data: Annotated[
        str | None,
        typer.Option(
            help="Labelled rows, as train --data takes them. All are scored; of a data set with splits, the test rows.",
            metavar="DATA",
            show_default=False,
            autocompletion=files,
        ),
    ] = None,
    model: Model = None,
    model_option: ModelOption = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Names of integer labels 0, 1, …, comma-separated.", metavar="A,B,…", show_default="the model's"
        ),
    ] = None,
    text_column: Annotated[
        str | None,
        typer.Option(help="Column of the text.", metavar="NAME", show_default="the project's, or the model's"),
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option(help="Column of the label.", metavar="NAME", show_default="the project's, or the model's"),
    ] = None,
    compare_to: Annotated[
        str | None,
        typer.Option(
            help="Another model with the same labels, to compare with.", metavar="MODEL", autocompletion=models
        ),
    ] = None,
    runtime: Annotated[str | None, setting(ServeSettings, "runtime", metavar="NAME")] = None,
    log: Annotated[
        bool, typer.Option("--log/--no-log", help="Log it to MLflow, if a tracking server is there.")
    ] = True,
    experiment: Experiment = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Evaluate a model on labelled rows, or compare two models.

    The result is logged to MLflow. Every score has a 95% bootstrap interval. Two models are compared on the same rows,
    by the interval of the difference and by McNemar's exact test.
    """
    screen = Output(as_json)
    if data is None and model is not None and Path(model).is_file():
        data, model = model, None  # `newsbert evaluate news.csv`
    if data is None:
        raise UsageError("--data is missing: there are no rows to score", "newsbert evaluate --data rows.csv")
    if model is not None and model_option is not None:
        raise UsageError(f"both {model!r} and --model {model_option!r} name a model", "give one of them")
    model = model or model_option
    from newsbert.api import evaluate as evaluating

    with screen.progress() as progress:
        result = evaluating.evaluate(
            model,
            data,
            labels=[name for part in (labels or "").split(",") if (name := part.strip())],
            text_column=text_column,
            label_column=label_column,
            compare_to=compare_to,
            runtime=runtime,
            log=log,
            tracking_uri=tracking_uri,
            experiment=experiment,
            on_event=lambda event: _report_event(screen, progress, event),
        )
    if screen.as_json:
        screen.document(_build_document(result))
    else:
        _render(screen, result)


def _report_event(screen: Output, progress: Progress, event: "Event") -> None:
    from newsbert.core import events

    if isinstance(event, events.Note):
        screen.note(event.message)
    elif isinstance(event, events.Phase):
        progress.phase(event.name)
    elif isinstance(event, events.Progress):
        progress.update(event.name, event.done, event.total, {})


def _build_document(result: "EvaluateResult") -> dict[str, Any]:
    comparison = result.comparison
    return {
        "data": result.data,
        "split": result.split or None,
        "rows": result.rows,
        "data_digest": result.data_digest,
        **_build_scores_document(result.model),
        "comparison": comparison
        and {
            **_build_scores_document(comparison.other),
            "difference": {
                "accuracy": dataclasses.asdict(comparison.accuracy),
                "f1_macro": dataclasses.asdict(comparison.f1_macro),
            },
            "mcnemar": dataclasses.asdict(comparison.mcnemar),
        },
        "run_id": result.run_id,
    }


def _build_scores_document(model: "ModelScores") -> dict[str, Any]:
    return {
        "model": model.name,
        "runtime": model.runtime,
        "bundle_digest": model.digest,
        "learned_rows": model.learned_rows,
        "metrics": model.scores.metrics,
        "intervals": {"accuracy": dataclasses.asdict(model.accuracy), "f1_macro": dataclasses.asdict(model.f1_macro)},
        "per_class": {name: dataclasses.asdict(class_scores) for name, class_scores in model.scores.per_class.items()},
        "confusion": model.scores.confusion.tolist(),
    }


def _render(screen: Output, result: "EvaluateResult") -> None:
    model = result.model
    per_class = model.scores.per_class
    rows = [
        [
            name,
            f"{class_scores.precision:.4f}",
            f"{class_scores.recall:.4f}",
            f"{class_scores.f1:.4f}",
            str(class_scores.support),
        ]
        for name, class_scores in per_class.items()
        if class_scores.support
    ]
    split = f", {result.split}" if result.split else ""
    title = f"{_shorten_name(model.name)} on {result.data}{split}"
    screen.table(["class", "precision", "recall", "F1", "rows"], rows[:_MAX_CLASSES], title=title)
    if len(rows) > _MAX_CLASSES:
        screen.note(f"{len(rows) - _MAX_CLASSES} more classes: --json has them")
    absent = [name for name, class_scores in per_class.items() if not class_scores.support]
    if absent:
        screen.note(f"no rows of {', '.join(absent)}: macro F1 is that of the other classes")
    scores = model.scores
    screen.table(
        ["score", "value", "95% interval"],
        [
            ["accuracy", f"{scores.accuracy:.4f}", _format_interval(model.accuracy)],
            ["macro F1", f"{scores.f1_macro:.4f}", _format_interval(model.f1_macro)],
            ["calibration error", f"{scores.calibration_error:.4f}", ""],
        ],
    )
    confusions = scores.confused(_MAX_CONFUSIONS)
    if confusions:
        summary = ", ".join(f"{true} for {predicted} ({rows})" for true, predicted, rows in confusions)
        screen.result(f"top confusions: {summary}")
    if result.comparison:
        _render_comparison(screen, model, result.comparison)
    if result.run_id:
        screen.result(f"run     {result.run_id}")


def _render_comparison(screen: Output, model: "ModelScores", comparison: "ModelComparison") -> None:
    metrics, other_metrics = model.scores.metrics, comparison.other.scores.metrics
    name, other_name = _shorten_name(model.name), _shorten_name(comparison.other.name)
    intervals = {"accuracy": comparison.accuracy, "f1_macro": comparison.f1_macro}
    screen.table(
        ["score", name, other_name, "difference", "95% interval"],
        [
            [
                title,
                f"{metrics[key]:.4f}",
                f"{other_metrics[key]:.4f}",
                f"{metrics[key] - other_metrics[key]:+.4f}",
                _format_interval(intervals[key], "+.4f") if key in intervals else "",
            ]
            for title, key in (
                ("accuracy", "accuracy"),
                ("macro F1", "f1_macro"),
                ("calibration error", "calibration_error"),
            )
        ],
    )
    test = comparison.mcnemar
    screen.result(
        f"{name} is right on {test.only_first} rows where {other_name} is wrong, and wrong on "
        f"{test.only_second} where that is right: p = {test.p_value:.2g} (McNemar's exact test)"
    )


def _shorten_name(name: str) -> str:
    """Return a model's name for a table, with the beginning of a run's id."""
    return name[: len("run ") + SHORT_RUN_ID_DIGITS] if name.startswith("run ") else name


def _format_interval(interval: "Interval", form: str = ".4f") -> str:
    return f"{interval.low:{form}} to {interval.high:{form}}"
