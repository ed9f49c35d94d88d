"""Scoring finished models on labelled rows, one or two side by side, and logging what came out."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from newsbert.bundle import row_sketch
from newsbert.bundle.bundle import SKETCH_FILE, Bundle
from newsbert.core import config, temporary
from newsbert.core.events import Event, Note, Phase, Progress
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
"""Rows classified at once: enough that sorting leaves little padding, few enough that progress is seen."""


@dataclass(frozen=True)
class ModelScores:
    """A model's scores on the rows.

    Attributes:
        name: What it is called, such as `BertModel/2`.
        runtime: What computed its answers.
        digest: Of its bundle.
        scores: Its scores.
        accuracy: Where its accuracy on rows like these lies.
        f1_macro: Where its macro F1 on rows like these lies.
        learned_rows: The number of rows that it was trained or validated on, an estimate where these were many; `None`
            if its bundle does not say.
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
    """The model beside the other one.

    Attributes:
        other: The other's scores.
        accuracy: Where the difference of accuracies lies; above 0, the model is better than the other.
        f1_macro: The same of macro F1.
        mcnemar: On how many rows only the model is right, and on how many only the other.
    """

    other: ModelScores
    accuracy: Interval
    f1_macro: Interval
    mcnemar: McNemar


@dataclass(frozen=True)
class EvaluateResult:
    """An evaluation.

    Attributes:
        data: Where the rows came from.
        split: Which of its splits they are, if it has several.
        rows: How many were scored.
        data_digest: SHA-256 over texts and labels.
        model: The model's scores.
        against: How it compares with the other model, if there is one.
        run_id: The MLflow run that it was logged to, if it was.
    """

    data: str
    split: str
    rows: int
    data_digest: str
    model: ModelScores
    against: ModelComparison | None
    run_id: str | None = None


def evaluate(  # noqa: PLR0913 - options by name
    model: str | Path | None,
    data: str,
    *,
    labels: Sequence[str] = (),
    text_column: str | None = None,
    label_column: str | None = None,
    against: str | Path | None = None,
    runtime: str | None = None,
    log: bool = True,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> EvaluateResult:
    """Score a model on labelled rows, by itself or against another on the same rows.

    Where it is to be logged and no tracking server was named in the call, one that cannot be reached costs no more than
    a note; so does one that fails once the scores are known.

    Args:
        model: As `load` takes it.
        data: As `train` takes it; all rows are scored, or the test rows of a data set with splits.
        labels: Names of integer labels, in their order, if it is not the model's.
        text_column: Column of the text; the project's or the model's, if not given.
        label_column: Column of the label; the project's or the model's, if not given.
        against: Another model with the same labels.
        runtime: `auto`, or one of `newsbert runtimes`; as configured if not given.
        log: Whether to log it to MLflow.
        tracking_uri: MLflow's; as configured if not given.
        experiment: MLflow's; as configured if not given.
        on_event: Called with what happens.

    Raises:
        NewsbertError: If there is no such model, or the rows cannot be scored.
    """
    runtime = config.resolve(ServeSettings, runtime=runtime).runtime
    references = [model] if against is None else [model, against]
    located = [locate.locate(each, tracking_uri=tracking_uri) for each in references]
    if len({each.name for each in located}) < len(located):  # directories of the same name
        located = [dataclasses.replace(each, name=str(each.path)) for each in located]
    bundles = [Bundle.read(each.path) for each in located]
    for bundle in bundles:
        resolve_runtime(bundle, runtime)  # what cannot answer is told before rows are read
    label_names = _labels_of(located, bundles)
    tracker = _connect(tracking_uri, experiment, on_event) if log else None
    project = config.resolve(TrainSettings)
    trained = bundles[0].contract.data
    on_event(Phase("loading"))
    rows = labelled(
        data,
        label_names,
        labels=labels,
        text_column=text_column,
        label_column=label_column,
        likely_texts=(project.text_column, trained.get("text_column")),
        likely_labels=(project.label_column, trained.get("label_column")),
    )
    for note in rows.notes:
        on_event(Note(note))
    known = [_count_known(bundle, rows) for bundle in bundles]
    for each, count in zip(located, known, strict=True):
        if count:
            on_event(
                Note(
                    f"{each.name} has learned from {count} of these {len(rows.items)} rows: it may do worse on new ones"
                )
            )
    loaded = [Model.from_directory(each.path, each.name, runtime) for each in located]
    true = np.asarray(rows.labels, dtype=np.int64)
    probabilities = [_probabilities(each, rows, label_names, on_event) for each in loaded]
    predictions: list[IntArray] = [each.argmax(axis=1) for each in probabilities]
    resampled = significance.resample(true, predictions, len(label_names))
    first, *others = (
        ModelScores(
            each.name,
            each.runtime,
            each.bundle.digest,
            score(answers, rows.labels, label_names),
            significance.interval(drawn.accuracy),
            significance.interval(drawn.f1_macro),
            count,
        )
        for each, answers, drawn, count in zip(loaded, probabilities, resampled, known, strict=True)
    )
    compared = None
    if others:
        one, other = resampled
        compared = ModelComparison(
            others[0],
            significance.interval(one.accuracy - other.accuracy),
            significance.interval(one.f1_macro - other.f1_macro),
            significance.mcnemar(true, *predictions),
        )
    if first.scores.accuracy == 1:
        least = significance.accuracy_lower_bound(len(true))
        on_event(Note(f"no row is wrong, so there is nothing to resample: the accuracy may be as low as {least:.4f}"))
    result = EvaluateResult(data, rows.split, len(true), rows.digest, first, compared)
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


def _labels_of(located: Sequence[ModelLocation], bundles: Sequence[Bundle]) -> list[str]:
    """The labels of all these models, in the first one's order.

    Raises:
        UsageError: If they have different ones.
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
    """Where to log: nowhere, with a note, if the server cannot be reached and the caller did not ask for this one."""
    try:
        return locate.connect(tracking_uri, experiment)
    except (TrackingError, NotFoundError, MissingExtraError) as error:
        if tracking_uri is not None:
            raise
        on_event(Note(f"nothing will be logged: {error.message}"))
        return None


def _probabilities(
    model: Model, rows: LabelledRows, label_names: Sequence[str], on_event: Callable[[Event], None]
) -> FloatArray:
    """A model's probabilities: `(rows, num_labels)`, in the order of `label_names`."""
    order = [model.bundle.contract.labels.index(name) for name in label_names]
    found = []
    for start in range(0, len(rows.items), _WINDOW_ROWS):
        on_event(Progress(f"scoring {model.name}", start, len(rows.items)))
        found.append(model.probabilities(rows.items[start : start + _WINDOW_ROWS])[:, order])
    on_event(Progress(f"scoring {model.name}", len(rows.items), len(rows.items)))
    return np.concatenate(found)


def _log(tracker: TrackingClient, result: EvaluateResult, located: ModelLocation) -> str:
    """Log the result to a run of its own and return the run's id."""
    from newsbert.evaluation import plots

    model = result.model
    with experiment.start_run(tracker, name=f"evaluate {model.name}", system_metrics=False) as run:
        run.tags(
            {
                "newsbert.version": __version__,
                "newsbert.evaluated": model.name,
                "newsbert.evaluated_digest": model.digest,
                **({"newsbert.against": result.against.other.name} if result.against else {}),
            }
        )
        run.params({"data": result.data, "split": result.split, "rows": result.rows, "runtime": model.runtime})
        (rows,) = run.dataset(result.data, result.data_digest, {"evaluation": result.rows})
        run.evaluation(_metrics(model), located.model_id, rows)
        if result.against:
            run.evaluation(_differences(result.against), None, rows)
        run.report(model.scores)
        with temporary.directory() as directory:
            picture = directory / "confusion_matrix.png"
            plots.confusion_matrix(model.scores, picture, f"{model.name} on {Path(result.data).name}")
            run.artifacts([picture])
    return run.run_id


def _metrics(model: ModelScores) -> dict[str, float]:
    metrics = dict(model.scores.metrics)
    for name, interval in (("accuracy", model.accuracy), ("f1_macro", model.f1_macro)):
        metrics |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    return metrics


def _differences(against: ModelComparison) -> dict[str, float]:
    metrics: dict[str, Any] = {f"against_{name}": value for name, value in _metrics(against.other).items()}
    for name, interval in (("accuracy", against.accuracy), ("f1_macro", against.f1_macro)):
        metrics |= {f"{name}_difference_low": interval.low, f"{name}_difference_high": interval.high}
    test = against.mcnemar
    return metrics | {
        "only_this_right": test.only_first,
        "only_other_right": test.only_second,
        "mcnemar_p": test.p_value,
    }
