"""Score one or two trained models on labelled rows, and log the result."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from newsbert.bundle import row_sketch
from newsbert.bundle.bundle import SKETCH_FILE, Bundle
from newsbert.core import config, temporary
from newsbert.core.events import Event, Note, Phase, Progress, ignore
from newsbert.core.installation import MissingExtraError
from newsbert.core.settings import ServeSettings, TrainSettings
from newsbert.core.types import FloatArray, IntArray
from newsbert.core.version import __version__
from newsbert.data.evaluation_set import LabelledRows, labelled
from newsbert.data.text import preprocess
from newsbert.errors import NotFoundError, TrackingError, UsageError
from newsbert.evaluation import significance
from newsbert.evaluation.metrics import Scores, score
from newsbert.evaluation.significance import Interval, McNemar
from newsbert.inference.model import Model
from newsbert.inference.runtime import resolve_runtime
from newsbert.tracking import experiment, locate
from newsbert.tracking.artifacts import ModelLocation
from newsbert.tracking.client import TrackingClient

_WINDOW_ROWS = 2048
"""Rows per prediction call: enough that sorting leaves little padding, few enough for regular progress events."""


@dataclass(frozen=True)
class ModelScores:
    """A model's scores on the rows.

    Attributes:
        name: The model's name, such as `BertModel/2`.
        runtime: The runtime that computed its answers.
        digest: The digest of its bundle.
        scores: The scores.
        accuracy: The confidence interval of its accuracy on rows like these.
        f1_macro: The confidence interval of its macro F1 on rows like these.
        learned_rows: The number of rows that it was trained or validated on, an estimate if these were many; `None` if
            its bundle does not record it.
    """

    name: str
    runtime: str
    digest: str
    scores: Scores
    accuracy: Interval
    f1_macro: Interval
    learned_rows: int | None


@dataclass(frozen=True)
class ModelComparison:
    """A comparison of the model with another one.

    Attributes:
        other: The other's scores.
        accuracy: The confidence interval of the difference in accuracy; above 0, the model is better than the other.
        f1_macro: The confidence interval of the difference in macro F1.
        mcnemar: McNemar's test, with the numbers of rows on which only the model, or only the other, is right.
    """

    other: ModelScores
    accuracy: Interval
    f1_macro: Interval
    mcnemar: McNemar


@dataclass(frozen=True)
class EvaluateResult:
    """The result of an evaluation.

    Attributes:
        data: The source of the rows.
        split: The split of the data, if it has several.
        rows: The number of scored rows.
        data_digest: SHA-256 over texts and labels.
        model: The model's scores.
        against: The comparison with the other model, if there is one.
        run_id: The MLflow run of the evaluation, if it was logged.
    """

    data: str
    split: str
    rows: int
    data_digest: str
    model: ModelScores
    comparison: ModelComparison | None
    run_id: str | None = None


def evaluate(  # noqa: PLR0913 - options by name
    model: str | Path | None,
    data: str,
    *,
    labels: Sequence[str] = (),
    text_column: str | None = None,
    label_column: str | None = None,
    compare_to: str | Path | None = None,
    runtime: str | None = None,
    log: bool = True,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    on_event: Callable[[Event], None] = ignore,
) -> EvaluateResult:
    """Score a model on labelled rows, by itself or against another on the same rows.

    A tracking server that cannot be reached causes only a note, unless `tracking_uri` names it. So does a server that
    fails after the scoring.

    Args:
        model: As `load` takes it.
        data: As `train` takes it; all rows are scored, or the test rows of a data set with splits.
        labels: Names of integer labels in their order, if it is not the model's order.
        text_column: Column of the text; default: the project's or the model's.
        label_column: Column of the label; default: the project's or the model's.
        compare_to: Another model with the same labels.
        runtime: `auto`, or one of `newsbert benchmark`; default: the configured one.
        log: Whether to log the result to MLflow.
        tracking_uri: MLflow's tracking URI; default: the configured one.
        experiment: The MLflow experiment; default: the configured one.
        on_event: Called with phases, progress and notes.

    Raises:
        NewsbertError: If there is no such model, or the rows cannot be scored.
    """
    runtime = config.resolve(ServeSettings, runtime=runtime).runtime
    references = [model] if compare_to is None else [model, compare_to]
    located = [locate.locate(reference, tracking_uri=tracking_uri) for reference in references]
    if len({location.name for location in located}) < len(located):  # directories of the same name
        located = [dataclasses.replace(location, name=str(location.path)) for location in located]
    bundles = [Bundle.read(location.path) for location in located]
    for bundle in bundles:
        resolve_runtime(bundle, runtime)  # fails before the rows are read
    label_names = _match_labels(located, bundles)
    tracker = _connect(tracking_uri, experiment, on_event) if log else None
    project = config.resolve(TrainSettings)
    trained = bundles[0].contract.data
    on_event(Phase("loading"))
    rows = labelled(
        data,
        label_names,
        cleaning=[bundle.contract.cleaning for bundle in bundles],
        labels=labels,
        text_column=text_column,
        label_column=label_column,
        likely_texts=(project.text_column, trained.get("text_column")),
        likely_labels=(project.label_column, trained.get("label_column")),
    )
    for note in rows.notes:
        on_event(Note(note))
    learned = [_count_known(bundle, rows) for bundle in bundles]
    for location, count in zip(located, learned, strict=True):
        if count:
            on_event(
                Note(
                    f"{location.name} has learned from {count} of these {len(rows.items)} rows: "
                    "it may do worse on new ones"
                )
            )
    loaded = [Model.from_directory(location.path, location.name, runtime) for location in located]
    true = np.asarray(rows.labels, dtype=np.int64)
    probabilities = [_predict_probabilities(loaded_model, rows, label_names, on_event) for loaded_model in loaded]
    predictions: list[IntArray] = [matrix.argmax(axis=1) for matrix in probabilities]
    resampled = significance.resample(true, predictions, len(label_names))
    first, *others = (
        ModelScores(
            loaded_model.name,
            loaded_model.runtime,
            loaded_model.bundle.digest,
            score(matrix, rows.labels, label_names),
            significance.interval(bootstrap.accuracy),
            significance.interval(bootstrap.f1_macro),
            count,
        )
        for loaded_model, matrix, bootstrap, count in zip(loaded, probabilities, resampled, learned, strict=True)
    )
    comparison = None
    if others:
        one, other = resampled
        comparison = ModelComparison(
            others[0],
            significance.interval(one.accuracy - other.accuracy),
            significance.interval(one.f1_macro - other.f1_macro),
            significance.mcnemar(true, *predictions),
        )
    if first.scores.accuracy == 1:
        min_accuracy = significance.accuracy_lower_bound(len(true))
        on_event(
            Note(f"no row is wrong, so there is nothing to resample: the accuracy may be as low as {min_accuracy:.4f}")
        )
    result = EvaluateResult(data, rows.split, len(true), rows.digest, first, comparison)
    if tracker is None:
        return result
    on_event(Phase("logging"))
    try:
        return dataclasses.replace(result, run_id=_log(tracker, result, located[0]))
    except (TrackingError, MissingExtraError) as error:
        on_event(Note(f"not logged: {error.message}"))
        return result


def _count_known(bundle: Bundle, rows: LabelledRows) -> int | None:
    """Return the number of rows that a model was trained or validated on, or `None` if its bundle does not say."""
    if SKETCH_FILE not in bundle.contract.files:
        return None
    bundle.verify(only=(SKETCH_FILE,))
    cleaning = bundle.contract.cleaning
    return row_sketch.count_known((preprocess(item, cleaning) for item in rows.items), bundle.path / SKETCH_FILE)


def _match_labels(located: Sequence[ModelLocation], bundles: Sequence[Bundle]) -> list[str]:
    """Return the labels of all models, in the first model's order.

    Raises:
        UsageError: If the models have different labels.
    """
    first, *others = (bundle.contract.labels for bundle in bundles)
    for labels in others:
        if set(labels) != set(first):
            raise UsageError(
                f"{located[0].name} and {located[1].name} have different labels: "
                f"{', '.join(first)}; {', '.join(labels)}",
                "compare models that were trained on the same classes",
            )
    return list(first)


def _connect(
    tracking_uri: str | None, experiment: str | None, on_event: Callable[[Event], None]
) -> TrackingClient | None:
    """Return a tracking client, or `None` with a note if the server is unreachable and `tracking_uri` is `None`."""
    try:
        return locate.connect(tracking_uri, experiment)
    except (TrackingError, NotFoundError, MissingExtraError) as error:
        if tracking_uri is not None:
            raise
        on_event(Note(f"nothing will be logged: {error.message}"))
        return None


def _predict_probabilities(
    model: Model, rows: LabelledRows, label_names: Sequence[str], on_event: Callable[[Event], None]
) -> FloatArray:
    """Return a model's probabilities: `(rows, num_labels)`, in the order of `label_names`."""
    order = [model.bundle.contract.labels.index(name) for name in label_names]
    windows = []
    for start in range(0, len(rows.items), _WINDOW_ROWS):
        on_event(Progress(f"scoring {model.name}", start, len(rows.items)))
        windows.append(model.probabilities(rows.items[start : start + _WINDOW_ROWS])[:, order])
    on_event(Progress(f"scoring {model.name}", len(rows.items), len(rows.items)))
    return np.concatenate(windows)


def _log(tracker: TrackingClient, result: EvaluateResult, located: ModelLocation) -> str:
    """Log the result to its own run and return the run's id."""
    from newsbert.evaluation import plots

    model = result.model
    with experiment.start_run(tracker, name=f"evaluate {model.name}", system_metrics=False) as run:
        run.tags(
            {
                "newsbert.version": __version__,
                "newsbert.evaluated": model.name,
                "newsbert.evaluated_digest": model.digest,
                **({"newsbert.compared_to": result.comparison.other.name} if result.comparison else {}),
            }
        )
        run.params({"data": result.data, "split": result.split, "rows": result.rows, "runtime": model.runtime})
        (rows,) = run.dataset(result.data, result.data_digest, {"evaluation": result.rows})
        run.evaluation(_collect_metrics(model), located.model_id, rows)
        if result.comparison:
            run.evaluation(_collect_differences(result.comparison), None, rows)
        run.report(model.scores)
        with temporary.directory() as directory:
            picture = directory / "confusion_matrix.png"
            plots.confusion_matrix(model.scores, picture, f"{model.name} on {Path(result.data).name}")
            run.artifacts([picture])
    return run.run_id


def _collect_metrics(model: ModelScores) -> dict[str, float]:
    metrics = dict(model.scores.metrics)
    for name, interval in (("accuracy", model.accuracy), ("f1_macro", model.f1_macro)):
        metrics |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    return metrics


def _collect_differences(comparison: ModelComparison) -> dict[str, float]:
    metrics: dict[str, Any] = {f"other_{name}": value for name, value in _collect_metrics(comparison.other).items()}
    for name, interval in (("accuracy", comparison.accuracy), ("f1_macro", comparison.f1_macro)):
        metrics |= {f"{name}_difference_low": interval.low, f"{name}_difference_high": interval.high}
    test = comparison.mcnemar
    return metrics | {
        "only_this_right": test.only_first,
        "only_other_right": test.only_second,
        "mcnemar_p": test.p_value,
    }
