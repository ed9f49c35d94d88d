"""Training run from labelled rows to a logged bundle: a new one, or one that is resumed."""

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
"""Default directory of bundles."""

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
        settings: Resolved settings.
        shared: Number of Ray workers, and the cluster.
        connect: Connects to the tracking server; called when there is something to log.
        model_name: Name to register the finished model under.
        on_event: Called with every event.
        stop: Called after every step.

    Raises:
        NewsbertError: If the training fails.
    """
    output = run_dir.output_directory(settings.output_dir) if settings.output_dir else None
    rows = load_rows(settings)
    for note in rows.notes:
        on_event(Note(note))
    base = base_model.find(settings.base_model)
    tracker = connect()
    for run_id, hint in run_dir.find_interrupted(output.parent if output else BUNDLES).items():
        tracker.end_killed(run_id)
        on_event(Note(f"run {run_id} was killed while training: {hint or 'what it left is removed'}"))
    mlflow_run_id = environment.mlflow_run_id()
    if mlflow_run_id:  # before the run is opened: its training may still be running
        run_dir.require_new(output or BUNDLES / mlflow_run_id, mlflow_run_id)
        experiment = tracker.experiment_of(mlflow_run_id)
        if experiment != tracker.settings.experiment:
            on_event(
                Note(
                    f"`mlflow run` made run {mlflow_run_id} in the experiment {experiment!r}, and newsbert's is "
                    f"{tracker.settings.experiment!r}: "
                    f"mlflow run --experiment-name {shlex.quote(tracker.settings.experiment)}"
                )
            )
    with _record_delivery() as results, start_run(tracker) as run:
        from newsbert.training import methods  # takes seconds: only when the tracking server has answered

        settings = methods.choose(settings, rows, base, shared.workers)
        final = output or BUNDLES / run.run_id
        params = make_params(settings, base, rows)
        state = RunState(
            run.run_id,
            str(final.absolute()),
            make_paths_absolute(settings),
            rows.digest,
            base.sha256,
            model_name,
            params,
        )
        with run_dir.create(final, state) as work:
            describe(run, params, settings.data, rows)
            results.append(_finish(run, work, final, TrainingContext(settings, rows, base, on_event, stop), shared))
    return _register(results[0], tracker, model_name)


def resume(
    reference: str,
    shared: RaySettings,
    tracker: "TrackingClient",
    model_name: str | None,
    on_event: OnEvent,
    stop: Stop,
) -> TrainResult:
    """Resume a training that was killed, or that failed after its first checkpoint; see `api.train`.

    It resumes from its latest checkpoint, or starts again in the same run if it has none.

    Args:
        reference: Its run id or the beginning of that, or its working directory.
        shared: Number of Ray workers, and the cluster; they may differ from those before.
        tracker: The tracking server that has the run.
        model_name: Name to register the finished model under; by default the one from the start.
        on_event: Called with every event.
        stop: Called after every step.

    Raises:
        NotFoundError: If there is no training to resume.
        UsageError: If its output directory is not empty, or it is finished or still running.
        DataError: If the rows have changed.
        ModelError: If the base model has changed.
        NewsbertError: If the training fails.
    """
    directory = _find_directory(reference)
    state = run_dir.read(directory)
    settings = _load_settings(state)
    rows = load_rows(settings)
    base = base_model.find(settings.base_model)
    if rows.digest != state.data_digest:
        raise DataError(f"the rows of {settings.data!r} are not those that run {state.run_id} began with", "train anew")
    if base.sha256 != state.base_model_sha256:
        raise ModelError(f"{settings.base_model!r} is not what run {state.run_id} began with", "train anew")
    final = Path(state.final)
    if upload.waits(final, state.run_id):
        raise UsageError(
            f"the training of run {state.run_id} is done: its model is in {final}, and only not logged",
            upload.later(final),
        )
    if run_dir.is_nonempty(final):
        raise UsageError(
            f"there is something in {final} by now",
            f"move it away; or, if run {state.run_id} made it, that training is done: remove {directory}",
        )
    # Nothing changes if the server cannot be reached, or has no such run.
    with (
        _record_delivery() as results,
        run_dir.locked(directory),
        start_run(tracker, state.run_id) as run,
        run_dir.cleanup_on_exit(directory, final),
    ):
        describe(run, state.params, settings.data, rows)  # again: the training may have been killed before this
        results.append(_finish(run, directory, final, TrainingContext(settings, rows, base, on_event, stop), shared))
    return _register(results[0], tracker, model_name or state.model_name)


def settings_of(reference: str) -> TrainSettings:
    """Return the settings of a training that can be resumed.

    Args:
        reference: The same as for `resume`.

    Raises:
        NotFoundError: If there is no training to resume.
    """
    return _load_settings(run_dir.read(_find_directory(reference)))


def _load_settings(begun: RunState) -> TrainSettings:
    return TrainSettings(**{**begun.settings, "labels": tuple(begun.settings["labels"])})


def _find_directory(reference: str) -> Path:
    directory = Path(reference) if Path(reference).is_dir() else run_dir.find(reference, BUNDLES)
    if directory is None:
        raise NotFoundError(
            f"there is nothing of a run {reference!r} in {BUNDLES} to go on with",
            "name the directory in which it worked, beside its --output-dir: newsbert train --resume .NAME.partial-…",
        )
    return directory


def _finish(run: "RunLogger", work: Path, final: Path, context: TrainingContext, shared: RaySettings) -> TrainResult:
    """Train from the latest checkpoint, if any, write the bundle and log it."""
    from newsbert.inference.runtime import load_runtime
    from newsbert.training import label_issues, methods
    from newsbert.training.export.bundle import write

    rows, on_event = context.dataset, context.on_event
    methods.check(context.base_model, context.settings)
    on_event(Phase("fitting the baseline"))
    baseline, candidates = _fit_baseline(rows, context.settings.seed)
    trained, tokenizer = _fit(context, shared, work, run)
    on_event(Phase("exporting"))
    part = work / run_dir.BUNDLE
    test_report, finished = write(part, context, trained, tokenizer, baseline.scores)
    suspects: list[LabelIssue] = []
    failure = None
    try:
        suspects = label_issues.confirm(
            candidates, rows.train, rows.label_names, load_runtime(finished.without_companion())
        )
        on_event(Phase("logging"))
        write_log(run.run_id, finished, test_report, trained, baseline, suspects)
    except Exception as error:  # the bundle is finished: no later failure may lose it
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
        scores=test_report.scores,
        seconds=trained.seconds,
        texts_per_second=test_report.texts_per_second,
        baseline=baseline,
        suspected_label_errors=len(suspects),
        stopped_early=trained.stopped_early,
        diverged_at=trained.diverged_at,
        version=None,
        review=test_report.review,
        parts=test_report.parts,
    )


@contextlib.contextmanager
def _record_delivery() -> Iterator[list[TrainResult]]:
    """Yield a list for the result; its upload record stays if its run cannot be ended after everything was logged."""
    results: list[TrainResult] = []
    try:
        yield results
    except Exception as error:
        for result in results:
            raise upload.undelivered(result.bundle, error) from error
        raise
    for result in results:
        upload.done(result.bundle)


def _register(result: TrainResult, tracker: "TrackingClient", model_name: str | None) -> TrainResult:
    if model_name is None:
        return result
    try:
        return dataclasses.replace(result, version=registry.register(tracker, result.run_id, model_name))
    except NewsbertError as error:
        raise upload.unregistered(result.bundle, model_name, error) from error


def _fit_baseline(rows: Dataset, seed: int) -> "tuple[BaselineReport, IntArray]":
    """Fit and score the baseline and find candidates of label issues; the memory is freed again."""
    from newsbert.training import baseline, label_issues

    fitted = baseline.BaselineClassifier(rows.train, seed)
    return fitted.score(rows.test, rows.label_names), label_issues.find_candidates(fitted, seed)


def _fit(
    context: TrainingContext, shared: RaySettings, work: Path, run: "RunLogger"
) -> "tuple[TrainedModel, SequenceTokenizer]":
    """Train, and log the events to the run as well."""
    from newsbert.training import methods, ray_trainer
    from newsbert.training.checkpoints import Checkpoints

    settings, rows, on_event = context.settings, context.dataset, context.on_event

    def report(event: Event) -> None:
        # The server may lack events of a killed training: all are logged again, and the run skips those that it has.
        events: list[Event] = [event]
        if isinstance(event, Resumed):
            events = [*event.history.steps, *event.history.evaluations]
        for logged_event in events:
            log_event(run, logged_event)
        news = run.news()
        if news is not None:
            on_event(Note(news))
        on_event(event)

    on_event(Phase("tokenizing"))
    checkpoints = Checkpoints(run_dir.checkpoints(work))
    try:
        logging_context = dataclasses.replace(context, on_event=report)
        tokenizer = methods.prepare(logging_context, work / run_dir.BUNDLE)
        if shared.workers > 1:
            trained = ray_trainer.fit(logging_context, shared, checkpoints)
        else:
            trained = methods.tune(logging_context, tokenizer, checkpoints)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise NewsbertError(
            f"the memory does not hold a step of texts of up to {settings.max_length} tokens: {first_line(error)}",
            "free some (training takes 3 GB and more), or train again with less: "
            f"--max-length {settings.max_length // 2}, --tune head, or a smaller --base-model",
        ) from error
    best = next(evaluation for evaluation in trained.history.evaluations if evaluation.step == trained.best_step)
    chance_loss = math.log(len(rows.label_names))
    if best.loss >= chance_loss:
        comparison = f"its validation loss is {best.loss:.4f}, and that of guessing {chance_loss:.4f}"
        peak = settings.choose_learning_rate(len(rows.train))
        hint = f"a lower --learning-rate than {peak:g}, or more --epochs"
        on_event(Note(f"the model is not better than chance: {comparison}; try {hint}"))
    return trained, tokenizer


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether an error is from a lack of memory.

    It comes from the allocators of Python or torch, or from oneDNN, which only reports what it could not create.
    """
    import torch

    messages = (
        "can't allocate memory",
        "not enough memory",
        "bad_alloc",
        "could not create a primitive",
        "could not create a memory",
    )
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(message in str(error) for message in messages)
