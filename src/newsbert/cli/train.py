"""`newsbert train`."""

import contextlib
import dataclasses
import shlex
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from newsbert.cli._completion import files, runs
from newsbert.cli._options import Debug, Experiment, Json, ModelName, RayAddress, RayWorkers, TrackingUri, setting
from newsbert.cli._output import Output, Progress, duration
from newsbert.core import config, environment
from newsbert.core.settings import TrainSettings
from newsbert.core.signals import relay_signals
from newsbert.errors import UsageError

_MIN_TRUSTED_ACCURACY = 0.8
"""Minimum accuracy, as the lower bound of its interval, at which the labels that a model doubts are reported."""

if TYPE_CHECKING:
    from newsbert.core.events import Event
    from newsbert.evaluation.metrics import Scores
    from newsbert.evaluation.review_threshold import Threshold
    from newsbert.evaluation.significance import Interval
    from newsbert.training.result import TrainResult

EXAMPLES = """
Examples:

    newsbert train

    newsbert train news.csv --epochs 2 --model-name BertModel

    newsbert train --data news.csv --tune head --epochs 20

    newsbert train --resume 3a3273c1

    newsbert train --data news.csv --ray-workers 4 --ray-address auto

    newsbert train --data rows.jsonl.gz --labels World,Sports,Business,Sci/Tech --max-train-samples 15000
"""


def train(
    rows: Annotated[
        str | None, typer.Argument(metavar="DATA", help="The same as --data.", show_default=False, autocompletion=files)
    ] = None,
    data: Annotated[str | None, setting(TrainSettings, "data", metavar="DATA", completed=files)] = None,
    labels: Annotated[str | None, setting(TrainSettings, "labels", metavar="A,B,…")] = None,
    text_column: Annotated[str | None, setting(TrainSettings, "text_column", metavar="NAME")] = None,
    label_column: Annotated[str | None, setting(TrainSettings, "label_column", metavar="NAME")] = None,
    base_model: Annotated[str | None, setting(TrainSettings, "base_model", metavar="MODEL")] = None,
    epochs: Annotated[float | None, setting(TrainSettings, "epochs")] = None,
    max_steps: Annotated[int | None, setting(TrainSettings, "max_steps")] = None,
    max_train_samples: Annotated[int | None, setting(TrainSettings, "max_train_samples")] = None,
    batch_size: Annotated[int | None, setting(TrainSettings, "batch_size")] = None,
    tune: Annotated[str | None, setting(TrainSettings, "tune", metavar="METHOD")] = None,
    lora_rank: Annotated[int | None, setting(TrainSettings, "lora_rank")] = None,
    precision: Annotated[str | None, setting(TrainSettings, "precision", metavar="NAME")] = None,
    learning_rate: Annotated[float | None, setting(TrainSettings, "learning_rate")] = None,
    max_length: Annotated[int | None, setting(TrainSettings, "max_length")] = None,
    review_target_accuracy: Annotated[
        float | None, setting(TrainSettings, "review_target_accuracy", metavar="ACCURACY")
    ] = None,
    review_threshold: Annotated[float | None, setting(TrainSettings, "review_threshold", metavar="SCORE")] = None,
    companion: Annotated[str | None, setting(TrainSettings, "companion", metavar="NAME")] = None,
    cascade_loss: Annotated[float | None, setting(TrainSettings, "cascade_loss", metavar="POINTS")] = None,
    unlabelled: Annotated[str | None, setting(TrainSettings, "unlabelled", metavar="FILE", completed=files)] = None,
    seed: Annotated[int | None, setting(TrainSettings, "seed")] = None,
    output_dir: Annotated[
        str | None, setting(TrainSettings, "output_dir", "--output-dir", "-o", metavar="DIR", completed=files)
    ] = None,
    model_name: ModelName = None,
    experiment: Experiment = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Resume a run that was killed or failed: its id, or its directory.",
            autocompletion=runs,
        ),
    ] = None,
    ray_workers: RayWorkers = None,
    ray_address: RayAddress = None,
    in_container: Annotated[
        bool, typer.Option("--in-container", help="Train in the trainer image: newsbert build-image --trainer.")
    ] = False,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Fine-tune a BERT encoder and log the model to MLflow.

    Ctrl+C once stops after the current step and finishes the best model so far; twice aborts.
    """
    screen = Output(as_json)
    if rows is not None and data is not None:
        raise UsageError(f"both DATA ({rows}) and --data ({data}) name rows", "give one of them")
    flags: dict[str, Any] = {
        "data": data if rows is None else rows,
        "labels": labels,
        "text_column": text_column,
        "label_column": label_column,
        "base_model": base_model,
        "epochs": epochs,
        "max_steps": max_steps,
        "max_train_samples": max_train_samples,
        "batch_size": batch_size,
        "tune": tune,
        "lora_rank": lora_rank,
        "precision": precision,
        "learning_rate": learning_rate,
        "max_length": max_length,
        "review_target_accuracy": review_target_accuracy,
        "review_threshold": review_threshold,
        "companion": companion,
        "cascade_loss": cascade_loss,
        "unlabelled": unlabelled,
        "seed": seed,
        "output_dir": output_dir,
        "model_name": model_name,
        "experiment": experiment,
        "resume": resume,
        "workers": ray_workers,
        "ray_address": ray_address,
        "tracking_uri": tracking_uri,
    }
    if in_container and ray_workers is not None:
        raise UsageError("--ray-workers is for training without a container", "newsbert train --help")
    if in_container:
        from newsbert.images import train as trainer

        options = [f"--{name}" for name, enabled in {"json": as_json, "debug": debug}.items() if enabled]
        raise typer.Exit(trainer.train(flags, options, screen.raw, screen.raw_log))
    from newsbert.api.train import join_training, train

    if environment.torchrun_rank():  # the process of rank 0 runs this training and reports it
        with _stop_on_interrupt(lambda _: None) as stop:
            join_training(stop=stop, **{name: flags[name] for name in ("resume", *_SETTINGS)})
        return
    screen.log("loading …")
    in_foreign_run = environment.mlflow_run_id() is not None  # before MLflow removes the variable
    with screen.progress() as progress, _stop_on_interrupt(screen.note) as stop:
        result = train(
            **flags,
            on_event=_Reporter(screen, progress),
            stop=stop,
        )
    _render(screen, result, in_foreign_run=in_foreign_run)


_SETTINGS = tuple(field.name for field in dataclasses.fields(TrainSettings))


@contextlib.contextmanager
def _stop_on_interrupt(note: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Return the function that says whether to stop: after Ctrl+C or SIGTERM. A second one aborts."""
    stop = threading.Event()

    def request_stop(_number: int) -> None:
        stop.set()
        note("stopping after this step, then saving the best weights so far; Ctrl+C again aborts")

    with relay_signals(request_stop, max_relayed=1):
        yield stop.is_set


class _Reporter:
    """Renderer of training events."""

    def __init__(self, screen: Output, progress: Progress) -> None:
        self._screen = screen
        self._progress = progress
        self._score: float | None = None

    def __call__(self, event: "Event") -> None:
        from newsbert.core.events import Evaluation, Note, Phase, Progress, Resumed

        if isinstance(event, Note):
            self._screen.note(event.message)
        elif isinstance(event, Phase):
            self._progress.phase(event.name)
        elif isinstance(event, Resumed):
            self._screen.log(f"resuming from step {event.step}")
        elif isinstance(event, Progress):
            self._progress.update(event.name, event.done, event.total, {})
        elif isinstance(event, Evaluation):
            self._score = event.f1_macro
            suffix = ", best" if event.best else ""
            self._screen.log(
                f"step {event.step} (epoch {event.epoch:.2f}): F1 {event.f1_macro:.4f}, "
                f"accuracy {event.accuracy:.4f}, loss {event.loss:.4f}{suffix}"
            )
        else:
            details = {} if event.loss is None else {"loss": f"{event.loss:.4f}"}
            if self._score is not None:
                details["F1"] = f"{self._score:.4f}"
            details["left"] = duration(event.seconds_left)
            self._progress.update("training", event.step, event.total_steps, details)


def _render(screen: Output, result: "TrainResult", *, in_foreign_run: bool) -> None:
    """Print the result.

    Args:
        screen: The command's output.
        result: The result of training.
        in_foreign_run: True if `mlflow run` created the run, which may be in any experiment.
    """
    version = str(result.version) if result.version else None
    if version:
        command = shlex.join(["newsbert", "serve", "locally", version])
    else:
        name = [] if config.model_name() else ["--model-name", "BertModel"]
        command = shlex.join(["newsbert", "register", *([result.run_id] if in_foreign_run else []), *name])
    if screen.as_json:
        screen.document(
            {
                "bundle": str(result.bundle),
                "run_id": result.run_id,
                "model": version,
                "metrics": result.metrics,
                "intervals": {
                    name: dataclasses.asdict(interval) for name, interval in _compute_intervals(result.scores).items()
                },
                "texts_per_second": result.texts_per_second,
                "baseline": result.baseline.metrics,
                "parts": {name: scores.metrics for name, scores in result.parts.items()},
                "suspected_label_errors": result.suspected_label_errors,
                "per_class": {
                    name: dataclasses.asdict(class_scores) for name, class_scores in result.scores.per_class.items()
                },
                "confusion": result.scores.confusion.tolist(),
                "review": dataclasses.asdict(result.review[0]),
                "review_by_target_accuracy": [dataclasses.asdict(threshold) for threshold in result.review[1:]],
                "training_seconds": result.seconds,
                "stopped_early": result.stopped_early,
                "diverged_at": result.diverged_at,
                "next": command,
            }
        )
        return
    per_class = result.scores.per_class
    rows = [
        [
            name,
            f"{class_scores.precision:.4f}",
            f"{class_scores.recall:.4f}",
            f"{class_scores.f1:.4f}",
            str(class_scores.support),
        ]
        for name, class_scores in per_class.items()
    ]
    total = str(sum(class_scores.support for class_scores in per_class.values()))
    rows.append(["all (macro F1)", "", "", f"{result.scores.f1_macro:.4f}", total])
    screen.table(["class", "precision", "recall", "F1", "test rows"], rows)
    screen.table(["", "accuracy", "macro F1", "training time", "texts/s"], _compare_with_baseline(result))
    if baseline_note := _build_baseline_note(result):
        screen.note(baseline_note)
    screen.result(_describe_threshold(result.review[0]))
    screen.result(f"bundle  {result.bundle}")
    screen.result(f"run     {result.run_id}")
    if version:
        screen.result(f"model   {version}")
    if label_note := describe_suspects(result.suspected_label_errors, result.scores):
        screen.note(label_note)
    screen.next_command(command)


def _compare_with_baseline(result: "TrainResult") -> list[list[str]]:
    """Return table rows of the model, of its parts and of its baseline."""
    from newsbert.training.baseline import NAME

    model = "this model, stopped early" if result.stopped_early else "this model"
    baseline = result.baseline
    return [
        [name, *_format_scores(scores), fitted, "" if speed is None else f"{speed:,.0f}"]
        for name, scores, fitted, speed in (
            (model, result.scores, duration(result.seconds), result.texts_per_second),
            *((name, scores, "", None) for name, scores in result.parts.items()),
            (NAME, baseline.scores, f"{baseline.fit_seconds:.1f} s", baseline.texts_per_second),
        )
    ]


def _compute_intervals(scores: "Scores") -> "dict[str, Interval]":
    from newsbert.evaluation import significance

    return dict(zip(("accuracy", "f1_macro"), significance.intervals(scores.confusion), strict=True))


def _format_scores(scores: "Scores") -> list[str]:
    """Format accuracy and macro F1 with their 95% intervals on other rows like these."""
    intervals = _compute_intervals(scores)
    values = {"accuracy": scores.accuracy, "f1_macro": scores.f1_macro}
    return [f"{value:.4f} ({intervals[name].low:.2f}-{intervals[name].high:.2f})" for name, value in values.items()]


def _build_baseline_note(result: "TrainResult") -> str | None:
    """Return a note if the model is no better than the baseline, or if the test rows do not show that it is."""
    from newsbert.training.baseline import NAME

    accuracy, baseline_accuracy = result.scores.accuracy, result.baseline.scores.accuracy
    rows = sum(class_scores.support for class_scores in result.scores.per_class.values())
    if accuracy <= baseline_accuracy:
        return f"this model is no better than {NAME} on the {rows} test rows"
    if _compute_intervals(result.scores)["accuracy"].low <= baseline_accuracy:
        return f"{rows} test rows do not show whether this model is better than {NAME}: its interval holds both scores"
    return None


def describe_suspects(suspects: int, scores: "Scores") -> str | None:
    """Return a note on the labels that the model doubts, if it is accurate enough."""
    if not suspects or _compute_intervals(scores)["accuracy"].low < _MIN_TRUSTED_ACCURACY:
        return None
    return f"{suspects} training rows look mislabelled: see suspected_label_errors.json in the run"


def _describe_threshold(chosen: "Threshold") -> str:
    """Describe the effect of a review threshold on the test rows."""
    if chosen.test.accuracy is None:
        return "all answers are flagged for review"
    if chosen.below == 0:
        return "no answer is flagged for review"
    flagged = f"{chosen.test.review_rate:.1%} of the test texts are flagged"
    return f"review threshold {chosen.below:.4g}: {flagged}; accuracy on the others {chosen.test.accuracy:.1%}"
