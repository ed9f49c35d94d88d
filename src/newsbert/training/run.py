"""One training, from labelled rows to a logged bundle: begun, or gone on with where it was killed."""

import contextlib
import dataclasses
import math
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from newsbert.core import environment
from newsbert.core.events import Event, Note, Phase, Resumed
from newsbert.core.settings import RaySettings, TrainSettings
from newsbert.data.dataset import Dataset
from newsbert.errors import DataError, ModelError, NewsbertError, NotFoundError, UsageError, first_line
from newsbert.tracking import registry, upload
from newsbert.tracking.experiment import start_run
from newsbert.training import base_model, run_dir
from newsbert.training.context import TrainingContext
from newsbert.training.report import describe, log_event, make_params, write_log
from newsbert.training.result import TrainResult
from newsbert.training.rows import load_rows, make_paths_absolute
from newsbert.training.run_dir import RunState

if TYPE_CHECKING:
    from newsbert.core.types import IntArray
    from newsbert.inference.tokenization import SequenceTokenizer
    from newsbert.tracking.client import TrackingClient
    from newsbert.tracking.runs import RunLogger
    from newsbert.training.baseline import BaselineReport
    from newsbert.training.fine_tuning import TrainedModel
    from newsbert.training.label_issues import LabelIssue

BUNDLES = Path("bundles")
"""Where bundles are, if no place is named."""

OnEvent = Callable[[Event], None]
Stop = Callable[[], bool]


def start(
    settings: TrainSettings,
    shared: RaySettings,
    connect: "Callable[[], TrackingClient]",
    model_name: str | None,
    on_event: OnEvent,
    stop: Stop,
) -> TrainResult:
    """Train, and log the run, the model and its bundle; see `api.train`.

    Args:
        settings: As they were resolved.
        shared: How many workers of Ray tune, and where.
        connect: Reaches the tracking server, when it is known that there is something to log.
        model_name: What the model is registered as when it is done.
        on_event: Called with what happens.
        stop: Asked after every step.

    Raises:
        NewsbertError: If it cannot be done.
    """
    output = run_dir.output_directory(settings.output) if settings.output else None
    rows = load_rows(settings)
    for note in rows.notes:
        on_event(Note(note))
    base = base_model.find(settings.base_model)
    tracker = connect()
    for run_id, on in run_dir.find_interrupted(output.parent if output else BUNDLES).items():
        tracker.end_killed(run_id)
        on_event(Note(f"run {run_id} was killed while training: {on or 'what it left is removed'}"))
    given = environment.mlflow_run_id()
    if given:  # before it is opened: the training in it may live
        run_dir.require_new(output or BUNDLES / given, given)
        experiment = tracker.experiment_of(given)
        if experiment != tracker.settings.experiment:
            on_event(
                Note(
                    f"`mlflow run` made run {given} in the experiment {experiment!r}, and newsbert's is "
                    f"{tracker.settings.experiment!r}: "
                    f"mlflow run --experiment-name {shlex.quote(tracker.settings.experiment)}"
                )
            )
    with _ended() as results, start_run(tracker) as run:
        final = output or BUNDLES / run.run_id
        params = make_params(settings, base, rows)
        begun = RunState(
            run.run_id,
            str(final.absolute()),
            make_paths_absolute(settings),
            rows.digest,
            base.sha256,
            model_name,
            params,
        )
        with run_dir.create(final, begun) as work:
            describe(run, params, settings.data, rows)
            results.append(_finish(run, work, final, TrainingContext(settings, rows, base, on_event, stop), shared))
    return _registered(results[0], tracker, model_name)


def resume(
    reference: str,
    shared: RaySettings,
    tracker: "TrackingClient",
    model_name: str | None,
    on_event: OnEvent,
    stop: Stop,
) -> TrainResult:
    """Go on with a training that was killed, or failed after it had a checkpoint; see `api.train`.

    It goes on from its latest checkpoint, or begins again in the same run if it had none.

    Args:
        reference: Its run's id or the beginning of that, or the directory in which it worked.
        shared: How many workers of Ray tune, and where; they may be others than at first.
        tracker: The tracking server that has the run.
        model_name: What the model is registered as when it is done, if not what was said at first.
        on_event: Called with what happens.
        stop: Asked after every step.

    Raises:
        NotFoundError: If there is nothing to go on from.
        UsageError: If something else is where its bundle belongs, or it is still under way.
        DataError: If the rows are others now.
        ModelError: If the base model is another now.
        NewsbertError: If it cannot be done.
    """
    directory = _left(reference)
    begun = run_dir.read(directory)
    settings = _settings(begun)
    rows = load_rows(settings)
    base = base_model.find(settings.base_model)
    if rows.digest != begun.data_digest:
        raise DataError(f"the rows of {settings.data!r} are not those that run {begun.run_id} began with", "train anew")
    if base.sha256 != begun.base_model_sha256:
        raise ModelError(f"{settings.base_model!r} is not what run {begun.run_id} began with", "train anew")
    final = Path(begun.final)
    if upload.waits(final, begun.run_id):
        raise UsageError(
            f"the training of run {begun.run_id} is done: its model is in {final}, and only not logged",
            upload.later(final),
        )
    if run_dir.is_nonempty(final):
        raise UsageError(
            f"there is something in {final} by now",
            f"move it away; or, if run {begun.run_id} made it, that training is done: remove {directory}",
        )
    # A server that cannot be reached, or has no such run, leaves all as it is.
    with (
        _ended() as results,
        run_dir.locked(directory),
        start_run(tracker, begun.run_id) as run,
        run_dir.cleanup_on_exit(directory, final),
    ):
        describe(run, begun.params, settings.data, rows)  # again: it may have been killed before that
        results.append(_finish(run, directory, final, TrainingContext(settings, rows, base, on_event, stop), shared))
    return _registered(results[0], tracker, model_name or begun.model_name)


def settings_of(reference: str) -> TrainSettings:
    """The settings of a training that can go on.

    Args:
        reference: As `resume` takes it.

    Raises:
        NotFoundError: If there is nothing to go on from.
    """
    return _settings(run_dir.read(_left(reference)))


def _settings(begun: RunState) -> TrainSettings:
    return TrainSettings(**{**begun.settings, "labels": tuple(begun.settings["labels"])})


def _left(reference: str) -> Path:
    directory = Path(reference) if Path(reference).is_dir() else run_dir.find(reference, BUNDLES)
    if directory is None:
        raise NotFoundError(
            f"there is nothing of a run {reference!r} in {BUNDLES} to go on with",
            "name the directory in which it worked, beside its --output: newsbert train --resume .NAME.partial-…",
        )
    return directory


def _finish(run: "RunLogger", work: Path, final: Path, context: TrainingContext, shared: RaySettings) -> TrainResult:
    """Train from where it is, write the bundle and log it."""
    from newsbert.inference.runtime import load_runtime
    from newsbert.training import label_issues, strategies
    from newsbert.training.export.bundle import write

    rows, on_event = context.dataset, context.on_event
    strategies.check(context.base_model, context.settings)
    on_event(Phase("fitting the baseline"))
    baseline, doubted = _baseline(rows, context.settings.seed)
    trained, tokenizer = _fit(context, shared, work, run)
    on_event(Phase("exporting"))
    part = work / run_dir.BUNDLE
    tested, finished = write(part, context, trained, tokenizer, baseline.scores)
    suspects: list[LabelIssue] = []
    failure = None
    try:
        suspects = label_issues.confirm(doubted, rows.train, rows.label_names, load_runtime(finished))
        on_event(Phase("logging"))
        write_log(run.run_id, finished, tested, trained, baseline, suspects)
    except Exception as error:  # the bundle is finished: nothing that fails from here on may lose it
        failure = error
    bundle = upload.place(part, final, run.run_id)
    try:
        if failure is not None:
            raise upload.undelivered(bundle, failure) from failure
        upload.deliver(run, bundle, on_event)
    finally:
        run_dir.mark_finished(work)
    return TrainResult(
        bundle=bundle,
        run_id=run.run_id,
        scores=tested.scores,
        seconds=trained.seconds,
        texts_per_second=tested.texts_per_second,
        baseline=baseline,
        suspected_label_errors=len(suspects),
        stopped_early=trained.stopped_early,
        diverged_at=trained.diverged_at,
        version=None,
        review=tested.review,
    )


@contextlib.contextmanager
def _ended() -> Iterator[list[TrainResult]]:
    """Yield a list for the result, whose record is kept where its run cannot be ended after all of it was logged."""
    results: list[TrainResult] = []
    try:
        yield results
    except Exception as error:
        for result in results:
            raise upload.undelivered(result.bundle, error) from error
        raise
    for result in results:
        upload.done(result.bundle)


def _registered(result: TrainResult, tracker: "TrackingClient", model_name: str | None) -> TrainResult:
    if model_name is None:
        return result
    try:
        return dataclasses.replace(result, version=registry.register(tracker, result.run_id, model_name))
    except NewsbertError as error:
        raise upload.unregistered(result.bundle, model_name, error) from error


def _baseline(rows: Dataset, seed: int) -> "tuple[BaselineReport, IntArray]":
    """Fit and score what the model has to beat, and let it doubt training rows; what it took is freed again."""
    from newsbert.training import baseline, label_issues

    fitted = baseline.BaselineClassifier(rows.train, seed)
    return fitted.score(rows.test, rows.label_names), label_issues.find_candidates(fitted, seed)


def _fit(
    context: TrainingContext, shared: RaySettings, work: Path, run: "RunLogger"
) -> "tuple[TrainedModel, SequenceTokenizer]":
    """Train, logging what is reported to the run as well."""
    from newsbert.training import ray_trainer, strategies
    from newsbert.training.checkpoints import Checkpoints

    settings, rows, on_event = context.settings, context.dataset, context.on_event

    def report(event: Event) -> None:
        # What a training that was killed has reported need not have reached the server; what has is left out.
        told: list[Event] = [event]
        if isinstance(event, Resumed):
            told = [*event.history.steps, *event.history.evaluations]
        for each in told:
            log_event(run, each)
        news = run.news()
        if news is not None:
            on_event(Note(news))
        on_event(event)

    on_event(Phase("tokenizing"))
    checkpoints = Checkpoints(run_dir.checkpoints(work))
    try:
        reported = dataclasses.replace(context, on_event=report)
        tokenizer = strategies.prepare(reported, work / run_dir.BUNDLE)
        if shared.workers > 1:
            trained = ray_trainer.fit(reported, shared, checkpoints)
        else:
            trained = strategies.tune(reported, tokenizer, checkpoints)
    except (MemoryError, RuntimeError) as error:
        if not _lacks_memory(error):
            raise
        raise NewsbertError(
            f"the memory does not hold a step of texts of up to {settings.max_length} tokens: {first_line(error)}",
            "free some (training takes 3 GB and more), or train anew with less: "
            f"--max-length {settings.max_length // 2}, --tune head, or a smaller --base-model",
        ) from error
    kept = next(each for each in trained.history.evaluations if each.step == trained.best_step)
    guessed = math.log(len(rows.label_names))
    if kept.loss >= guessed:
        said = f"its loss on the validation rows is {kept.loss:.4f}, and guessing has {guessed:.4f}"
        mend = f"a lower --learning-rate than {settings.peak_learning_rate:g}, or more --epochs"
        on_event(Note(f"the model has learned nothing: {said}; try {mend}"))
    return trained, tokenizer


def _lacks_memory(error: Exception) -> bool:
    """Whether it is of Python's or torch's allocators, or of oneDNN, which only says what it could not create."""
    import torch

    said = (
        "can't allocate memory",
        "not enough memory",
        "bad_alloc",
        "could not create a primitive",
        "could not create a memory",
    )
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(each in str(error) for each in said)
