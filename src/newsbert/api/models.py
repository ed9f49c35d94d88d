"""Load, register and archive models."""

import contextlib
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from newsbert.bundle.bundle import AUTO, Bundle
from newsbert.core.identifiers import parse_alias, parse_model_name
from newsbert.core.settings import RaySettings, ServeSettings
from newsbert.inference.model import Model
from newsbert.inference.runtime import resolve_runtime
from newsbert.serving import archive, protocol
from newsbert.tracking import flavor, registry, upload
from newsbert.tracking.locate import connect, default_name, locate
from newsbert.tracking.registry import ModelVersionRef
from newsbert.training import run_dir

if TYPE_CHECKING:
    from newsbert.inference.batch.ray_workers import Workers


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
) -> ModelVersionRef:
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
        run_dir.find_interrupted(Path(source).parent)  # which removes what a training left that was killed as it ended
        return upload.register(Path(source), connect(tracking_uri, experiment, create=True), name, alias, key)
    return registry.register(connect(tracking_uri, experiment), source, name, alias, sign=key)


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
    name = name or (located.name if located.run_id else default_name(bundle))
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
    written = directory / protocol.SERVED_NAME
    runtime = resolve_runtime(bundle, settings.runtime)
    files = bundle.files(runtime)
    files[archive.CONFIG_NAME] = archive.model_config(located.name, settings, runtime)
    flavor.write_for_plugin(files, bundle.path / "model.safetensors", written)
    return located.name, written


def plugin_command(directory: Path) -> list[str]:
    """Return the command with which mlflow-torchserve deploys what `write_for_plugin` wrote."""
    handler = Path(str(resources.files("newsbert.serving") / archive.HANDLER_NAME))
    return [
        "mlflow", "deployments", "create", "-t", "torchserve", "-m", str(directory), "--name", protocol.SERVED_NAME,
        "-C", f"HANDLER={handler}", "-C", "initial_workers=1", "-C", "synchronous=true",
    ]  # fmt: skip
