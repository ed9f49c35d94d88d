"""The Python interface: `train` and `load`. The command line is a user of it."""

import contextlib
import dataclasses
import functools
import shlex
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newsbert.bundle import bundle
from newsbert.bundle.bundle import AUTO, Bundle
from newsbert.core import config, ray_cluster
from newsbert.core.events import Event
from newsbert.core.identifiers import parse_alias, parse_model_name
from newsbert.core.settings import RaySettings, ServeSettings, TrackingSettings, TrainSettings
from newsbert.errors import MissingExtraError, ModelError, NewsbertError, UsageError
from newsbert.inference.model import Model
from newsbert.inference.runtime import resolve_runtime
from newsbert.serving import archive
from newsbert.tracking import artifacts, flavor, upload
from newsbert.tracking.artifacts import Located
from newsbert.tracking.client import Tracker, Version
from newsbert.training import run, run_dir
from newsbert.training.run import TrainResult

if TYPE_CHECKING:
    from newsbert.inference.batch.ray_workers import Workers


def train(
    *,
    data: str | Path | None = None,
    labels: Sequence[str] | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    base_model: str | Path | None = None,
    epochs: float | None = None,
    max_steps: int | None = None,
    samples: int | None = None,
    batch_size: int | None = None,
    tune: str | None = None,
    lora_rank: int | None = None,
    precision: str | None = None,
    learning_rate: float | None = None,
    max_length: int | None = None,
    review_precision: float | None = None,
    review_below: float | None = None,
    seed: int | None = None,
    output: str | Path | None = None,
    model_name: str | None = None,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    resume: str | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    stop: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Fine-tune an encoder and log the run, the model and its bundle.

    What is not given is as configured, or else as `settings.TrainSettings` has it.

    Args:
        data: `sample`, a file or directory of labelled rows, or a data set of the Hub.
        labels: Names of integer labels 0, 1, …
        text_column: Column of the text.
        label_column: Column of the label.
        base_model: `minilm`, a model's directory, or a Hub name.
        epochs: Passes over the training rows.
        max_steps: Steps at most, however many epochs they are.
        samples: Training rows to use at most.
        batch_size: Rows in a training step.
        tune: `full`, `lora` or `head`.
        lora_rank: Rank of the adapters of `lora`.
        precision: `bf16`, `fp32` or `auto`.
        learning_rate: The highest.
        max_length: Tokens read of a text, in training and in serving.
        review_precision: Which of the answers that no person has to see are to be right, as a ratio.
        review_below: Score below which a person has to see an answer.
        seed: Of splits, order and initialization.
        output: Directory for the bundle; `bundles/RUN_ID` if not given.
        model_name: Registers the model under this name when done.
        tracking_uri: MLflow's; as configured if not given.
        experiment: MLflow's; as configured if not given.
        resume: The id of a run that was killed, or failed after it had a checkpoint, or the beginning of the id, or the
            directory in which it worked: it goes on from there, with its own settings.
        workers: How many processes tune, through Ray; as configured if not given.
        ray_address: Of the cluster that has them; as configured if not given.
        on_event: Called with what happens.
        stop: Asked after every step; true ends training early, with the model kept so far finished and logged.

    Raises:
        NewsbertError: If it cannot be done; nothing half-written is left.
    """
    arguments = locals()
    settings = {field.name: arguments[field.name] for field in dataclasses.fields(TrainSettings)}
    shared = config.resolve_shared(workers, ray_address)
    if model_name is not None:
        parse_model_name(model_name)
    given = [name for name, value in settings.items() if value is not None]
    if resume is not None and given:
        raise UsageError(
            f"--resume goes on with the settings of its run, and --{given[0].replace('_', '-')} is another",
            f"newsbert train --resume {shlex.quote(resume)}",
        )
    resolved = _train_settings(resume, settings)
    _check_shared(resolved, shared)
    if resume is not None:
        return run.resume(resume, shared, connect(tracking_uri, experiment), model_name, on_event, stop)
    reach = functools.partial(connect, tracking_uri, experiment, create=True)
    return run.start(resolved, shared, reach, model_name, on_event, stop)


def help_train(resume: str | None, stop: Callable[[], bool], **settings: Any) -> None:
    """Share the steps of a training that another of torchrun's processes runs.

    Args:
        resume: As `train` takes it.
        stop: Asked after every step.
        **settings: As `train` takes them.

    Raises:
        NewsbertError: If it cannot be done.
    """
    from newsbert.training import strategies

    resolved = _train_settings(resume, settings)
    rows = run.load_rows(resolved)
    strategies.help_out(resolved, rows, None, lambda event: None, stop)


def _train_settings(resume: str | None, settings: dict[str, Any]) -> TrainSettings:
    """Those of the training that goes on, or what is given, configured or default."""
    return config.resolve(TrainSettings, **settings) if resume is None else run.settings_of(resume)


def _check_shared(settings: TrainSettings, shared: RaySettings) -> None:
    """See whether processes can share a training.

    Raises:
        UsageError: If they cannot.
    """
    several = shared.workers > 1 or config.torchrun_rank() is not None
    if several and settings.tune == "head":
        raise UsageError("--tune head is done by one process", "--workers 1, without torchrun")
    if shared.workers > 1 and config.torchrun_rank() is not None:
        raise UsageError(f"--workers {shared.workers} and torchrun both start processes", "--workers 1")
    if shared.workers > 1:
        ray_cluster.check(shared)


def load(
    reference: str | Path | None = None,
    *,
    runtime: str = AUTO,
    review_below: float | None = None,
    tracking_uri: str | None = None,
) -> Model:
    """Load a model to predict with in this process.

    Args:
        reference: A bundle's directory, `BertModel/2`, `BertModel@champion`, `models:/…`, a run id or `runs:/…`;
            nothing for the version that was registered last, or else the latest finished run.
        runtime: `auto`, or one of `newsbert runtimes`.
        review_below: The score below which a person has to see an answer, 0 for none, 1 for all; as chosen in training
            if not given.
        tracking_uri: MLflow's; as configured if not given.

    Raises:
        NewsbertError: If there is no such model, or it is not what training wrote.
    """
    located = locate(reference, tracking_uri=tracking_uri)
    return Model.from_directory(located.path, located.name, runtime, review_below)


def register(
    source: str | None,
    name: str,
    alias: str | None = None,
    *,
    sign: str | Path | None = None,
    tracking_uri: str | None = None,
    experiment: str | None = None,
) -> Version:
    """Make a model a version of the registered model `name`.

    Args:
        source: A run id, a `runs:/…` URI, or nothing for the latest finished run; or a bundle's directory, which is
            logged first where that was not done.
        name: The registered model; made if there is none.
        alias: An alias to point at the version.
        sign: A private key in PEM to sign the model with; `NEWSBERT_SIGNING_PASSPHRASE` has its passphrase.
        tracking_uri: MLflow's; as configured if not given.
        experiment: MLflow's; as configured if not given.

    Raises:
        NewsbertError: If there is no such model, or the registry refuses.
    """
    key = None if sign is None else Path(sign)
    if source is not None and Path(source).is_dir():
        parse_model_name(name)
        if alias is not None:
            parse_alias(alias)
        run_dir.left(Path(source).parent)  # which removes what a training left that was killed as it ended
        return upload.register(Path(source), connect(tracking_uri, experiment, create=True), name, alias, key)
    return connect(tracking_uri, experiment).register(source, name, alias, sign=key)


@contextlib.contextmanager
def predictor(
    reference: str | Path | None,
    settings: ServeSettings,
    shared: RaySettings,
    on_note: Callable[[str], None],
    *,
    tracking_uri: str | None = None,
) -> "Iterator[tuple[Model | Workers, str]]":
    """Have a model to predict a file with, in this process or in several, and what tells it from others.

    Args:
        reference: As `load` takes it.
        settings: Its runtime, and the score below which a person has to see an answer.
        shared: How many processes, and where.
        on_note: Called with what the user should know.
        tracking_uri: MLflow's; as configured if not given.

    Raises:
        NewsbertError: As `load` does, or if Ray cannot be had.
    """
    located = locate(reference, tracking_uri=tracking_uri)
    if located.choice is not None:
        on_note(f"the latest finished run is taken: {located.choice}")
    with contextlib.ExitStack() as stack:
        found: Model | Workers
        if shared.workers > 1:
            from newsbert.inference.batch import ray_workers as workers

            shipped = Bundle.read(located.path)
            shipped.verify()
            found = stack.enter_context(workers.started(shipped, located.name, settings, shared, on_note))
        else:
            found = Model.from_directory(located.path, located.name, settings.runtime, settings.review_below)
        yield found, f"bundle {found.bundle.digest} in {found.runtime}, review below {found.review_below}"


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


def write_for_plugin(
    reference: str | Path | None, directory: Path, settings: ServeSettings, *, tracking_uri: str | None = None
) -> tuple[str, Path]:
    """Write the model directory that mlflow-torchserve's own target packs; return the model's name and the directory.

    Args:
        reference: As `load` takes it.
        directory: Where `news_classification` is made.
        settings: The runtime.
        tracking_uri: MLflow's; as configured if not given.

    Raises:
        NewsbertError: If there is no such model, it was altered, or the directory exists or cannot be written.
    """
    located = locate(reference, tracking_uri=tracking_uri)
    bundle = Bundle.read(located.path)
    bundle.verify()
    written = directory / archive.SERVED_NAME
    runtime = resolve_runtime(bundle, settings.runtime)
    files = bundle.files(runtime)
    files[archive.CONFIG_NAME] = archive.model_config(located.name, settings, runtime)
    flavor.write_for_plugin(files, bundle.path / "model.safetensors", written)
    return located.name, written


def plugin_command(directory: Path) -> list[str]:
    """Return the command with which mlflow-torchserve deploys what `write_for_plugin` wrote."""
    handler = Path(str(resources.files("newsbert.serving") / archive.HANDLER_NAME))
    return [
        "mlflow", "deployments", "create", "-t", "torchserve", "-m", str(directory), "--name", archive.SERVED_NAME,
        "-C", f"HANDLER={handler}", "-C", "initial_workers=1", "-C", "synchronous=true",
    ]  # fmt: skip


def nameless(bundle: Bundle) -> str:
    """What answers say of a bundle that no registry named: its digest, which is the same wherever it lies."""
    return f"bundle {bundle.digest[:12]}"


def locate(reference: str | Path | None = None, *, tracking_uri: str | None = None) -> Located:
    """Find the model that `reference` means and its bundle's directory; see `load`.

    Raises:
        NewsbertError: If there is no such model.
    """
    if reference is None:
        return artifacts.locate(connect(tracking_uri))
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
    return artifacts.locate(connect(tracking_uri), text)


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
