"""The Python interface: `train` and `load`. The command line is a user of it."""

import contextlib
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import newsbert
from newsbert import (
    archive,
    base_model,
    bundle,
    config,
    data,
    model_store,
    tracking,
    work_dir,
)
from newsbert.bundle import AUTO, Bundle
from newsbert.config import ServeSettings, TrackingSettings, TrainSettings
from newsbert.errors import MissingExtraError, ModelError, NewsbertError
from newsbert.evaluation import Scores
from newsbert.events import Evaluation, Event, History, Note, Phase, Step
from newsbert.model import Model
from newsbert.model_store import Located
from newsbert.run_log import DATA_DIGEST_TAG
from newsbert.tracking import Tracker

if TYPE_CHECKING:
    from newsbert.run_log import RunLog
    from newsbert.runtimes.tokenization import SequenceTokenizer
    from newsbert.tracking import Version
    from newsbert.training import Trained

_BUNDLES = Path("bundles")


@dataclass(frozen=True)
class TrainResult:
    """A finished training.

    Attributes:
        bundle: Directory of the bundle.
        run_id: The MLflow run.
        scores: On the test rows.
        seconds: Time spent training, evaluations included.
        stopped_early: Whether it was asked to stop before the last step.
        version: The registered version, if one was asked for.
    """

    bundle: Path
    run_id: str
    scores: Scores
    seconds: float
    stopped_early: bool
    version: "Version | None"

    @property
    def metrics(self) -> dict[str, float]:
        """Scores on the test rows by name."""
        return self.scores.metrics


def train(
    *,
    model_name: str | None = None,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    stop: Callable[[], bool] = lambda: False,
    **settings: Any,
) -> TrainResult:
    """Fine-tune an encoder and log the run, the model and its bundle.

    Args:
        model_name: Registers the model under this name when done.
        tracking_uri: MLflow's; as configured if not given.
        experiment: MLflow's; as configured if not given.
        on_event: Called with what happens.
        stop: Asked after every step; true ends training early, with the best model so far kept and logged.
        **settings: Fields of `config.TrainSettings`, such as `data`, `epochs` or `output`.

    Raises:
        NewsbertError: If it cannot be done; nothing half-written is left.
    """
    unknown = set(settings) - {field.name for field in dataclasses.fields(TrainSettings)}
    if unknown:
        raise TypeError(f"train() has no argument {unknown.pop()!r}")
    resolved = config.resolve(TrainSettings, **settings)
    if model_name is not None:
        tracking.check_names(model_name)
    output = work_dir.output_directory(resolved.output) if resolved.output else None
    rows = data.load(
        resolved.data,
        labels=resolved.labels,
        text_column=resolved.text_column,
        label_column=resolved.label_column,
        samples=resolved.samples,
        seed=resolved.seed,
    )
    for note in rows.notes:
        on_event(Note(note))
    base = base_model.find(resolved.base_model)
    tracker = connect(tracking_uri, experiment, create=True)
    for run_id in work_dir.remove_stale(output.parent if output else _BUNDLES):
        tracker.end_killed(run_id)
        on_event(Note(f"run {run_id} was killed while training: what it left is removed"))
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(tracker.run())
        final = output or _BUNDLES / run.run_id
        work = stack.enter_context(work_dir.beside(final, run.run_id))
        run.tags({"newsbert.version": newsbert.__version__, DATA_DIGEST_TAG: rows.digest})
        run.params(_params(resolved, base, rows))
        splits = {"train": len(rows.train), "validation": len(rows.validation), "test": len(rows.test)}
        run.dataset(resolved.data, rows.digest, splits)
        part = work / "bundle"
        part.mkdir()
        trained, tokenizer, history = _fit(base, rows, resolved, work, run, on_event, stop)
        from newsbert import assembly

        on_event(Phase("exporting"))
        scores, finished = assembly.write(part, trained, tokenizer, rows, base, history, on_event)
        on_event(Phase("logging"))
        _log(run, finished, scores, trained)
        part.replace(final)
        result = TrainResult(final, run.run_id, scores, trained.seconds, trained.stopped_early, None)
    if model_name is None:
        return result
    return dataclasses.replace(result, version=tracker.register(result.run_id, model_name))


def load(reference: str | Path | None = None, *, runtime: str = AUTO, tracking_uri: str | None = None) -> Model:
    """Load a model to predict with in this process.

    Args:
        reference: A bundle's directory, `BertModel/2`, `BertModel@champion`, `models:/…`, a run id or `runs:/…`;
            nothing for the version that was registered last, or else the latest finished run.
        runtime: `auto`, or one of `newsbert runtimes`.
        tracking_uri: MLflow's; as configured if not given.

    Raises:
        NewsbertError: If there is no such model, or it is not what training wrote.
    """
    located = locate(reference, tracking_uri=tracking_uri)
    return Model.from_directory(located.path, located.name, runtime)


def write_archive(
    reference: str | Path | None,
    directory: Path,
    settings: ServeSettings,
    *,
    name: str | None = None,
    tracking_uri: str | None = None,
) -> tuple[str, Path]:
    """Write a model's TorchServe archive into `directory` and return what its answers say, and its path.

    Args:
        reference: As `load` takes it.
        directory: Made if it is not there.
        settings: Workers, batching and runtime, which the archive carries.
        name: What the answers say of the model. If not given, the name that the registry knows, or for a directory,
            whose own name may be another elsewhere, `bundle` and the beginning of its digest.
        tracking_uri: MLflow's; as configured if not given.

    Raises:
        NewsbertError: If there is no such model, it was altered, or the archive cannot be written.
    """
    located = locate(reference, tracking_uri=tracking_uri)
    bundle = Bundle.read(located.path)
    bundle.verify()
    name = name or (located.name if located.run_id else nameless(bundle))
    return name, archive.write(bundle, directory, name, settings)


def nameless(bundle: Bundle) -> str:
    """What answers say of a bundle that no registry named: its digest, which is the same wherever it lies."""
    return f"bundle {bundle.digest[:12]}"


def locate(reference: str | Path | None = None, *, tracking_uri: str | None = None) -> Located:
    """Find the model that `reference` means and its bundle's directory; see `load`.

    Raises:
        NewsbertError: If there is no such model.
    """
    if reference is None:
        return model_store.locate(connect(tracking_uri))
    text, path = str(reference), Path(reference)
    with contextlib.suppress(RuntimeError):  # no such user's home: then there is no such directory either
        path = path.expanduser()
    try:
        is_directory = (path / bundle.CONTRACT_FILE).is_file() or path.is_dir()
    except OSError as error:
        raise ModelError(
            f"{text!r} cannot be read: {error.strerror}", "check the path and its rights, or give Name/2"
        ) from error
    if is_directory or text.startswith((".", "/", "~")):
        Bundle.read(path)  # raises what is missing
        return Located(path.name or path.resolve().name, path)
    return model_store.locate(connect(tracking_uri), text)


def connect(tracking_uri: str | None = None, experiment: str | None = None, *, create: bool = False) -> Tracker:
    """Reach the tracking server, as configured where an argument is not given.

    Args:
        tracking_uri: MLflow's.
        experiment: MLflow's.
        create: Whether to make the database where it is a file that is not there.

    Raises:
        NotFoundError: If it is a database file that is not there.
        TrackingError: If it cannot be reached.
    """
    settings = config.resolve(TrackingSettings, tracking_uri=tracking_uri, experiment=experiment)
    try:
        return Tracker(settings, create=create)
    except ModuleNotFoundError as error:
        raise _missing(error) from error


def _missing(error: ModuleNotFoundError) -> NewsbertError:
    module = (error.name or "").partition(".")[0]
    if module == "newsbert":
        raise error
    return MissingExtraError(module, "train")


def _fit(
    base: base_model.BaseModel,
    rows: data.Dataset,
    settings: TrainSettings,
    work: Path,
    run: "RunLog",
    on_event: Callable[[Event], None],
    stop: Callable[[], bool],
) -> "tuple[Trained, SequenceTokenizer, History]":
    """Train, logging what is reported to the run as well."""
    from newsbert import head, training

    history = History()

    def report(event: Event) -> None:
        if isinstance(event, Evaluation):
            history.evaluations.append(event)
            run.metrics(
                {
                    "validation_accuracy": event.accuracy,
                    "validation_f1_macro": event.f1_macro,
                    "validation_loss": event.loss,
                },
                event.step,
            )
        elif (
            isinstance(event, Step)
            and event.loss is not None
            and (not history.steps or history.steps[-1].loss != event.loss)
        ):
            history.steps.append(event)
            run.metrics({"train_loss": event.loss, "learning_rate": event.learning_rate or 0.0}, event.step)
        on_event(event)

    on_event(Phase("tokenizing"))
    tokenizer = training.prepare_tokenizer(base, work / "bundle", settings.max_length)
    if settings.tune == "head":
        trained = head.fit(base, rows, tokenizer, settings, report, stop)
    else:
        trained = training.fit(base, rows, tokenizer, settings, work / "checkpoints", report, stop)
    return trained, tokenizer, history


def _log(run: "RunLog", finished: Bundle, scores: Scores, trained: "Trained") -> None:
    """Log the final metrics, the pictures and reports, and the model."""
    import tempfile

    run.metrics(
        {
            **{f"test_{name}": value for name, value in finished.contract.metrics.items()},
            "temperature": finished.contract.temperature,
            "training_seconds": trained.seconds,
            "best_step": trained.best_step,
        }
    )
    run.tags({"newsbert.stopped_early": str(trained.stopped_early).lower(), "newsbert.precision": trained.precision})
    run.report(scores)
    with tempfile.TemporaryDirectory() as directory:
        summary = Path(directory) / "model_summary.txt"
        parameters = sum(parameter.numel() for parameter in trained.model.parameters())
        tuned = sum(parameter.numel() for parameter in trained.model.parameters() if parameter.requires_grad)
        summary.write_text(f"{trained.model}\n\n{parameters:,} parameters, {tuned:,} of them trained\n")
        run.artifacts([summary, *finished.path.glob("*.png")])
    run.model(finished, trained.model)


def _params(settings: TrainSettings, base: base_model.BaseModel, rows: data.Dataset) -> dict[str, Any]:
    """The resolved configuration as MLflow's parameters."""
    values = dataclasses.asdict(settings)
    values["labels"] = ",".join(rows.label_names)
    values["learning_rate"] = settings.peak_learning_rate
    return {**values, "base_model_name": base.name, "base_model_sha256": base.sha256, "train_rows": len(rows.train)}
