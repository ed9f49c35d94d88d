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
    review_threshold: float | None = None,
    cascade: str = AUTO,
    tracking_uri: str | None = None,
) -> Model:
    """Load a model to predict with in this process.

    Args:
        reference: A bundle's directory, `BertModel/2`, `BertModel@champion`, `models:/…`, a run id or `runs:/…`;
            `None` for the version that was registered last, or else the latest finished run.
        runtime: `auto`, or one of `newsbert benchmark`.
        review_threshold: Answers with a lower score are flagged for review: 0 flags none, 1 all; default: the value
            chosen in training.
        cascade: Whether the companion answers alone the texts of which it is sure: `on`, `off`, or `auto`, if training
            found that this costs little accuracy.
        tracking_uri: MLflow's tracking URI; default: the configured one.

    Raises:
        NewsbertError: If there is no such model, or it was altered after training.
    """
    located = locate(reference, tracking_uri=tracking_uri)
    return Model.from_directory(located.path, located.name, runtime, review_threshold, cascade=cascade)


def register(
    source: str | None,
    name: str,
    alias: str | None = None,
    *,
    sign: str | Path | None = None,
    tracking_uri: str | None = None,
    experiment: str | None = None,
) -> ModelVersionRef:
    """Register a model as a version of the registered model `name`.

    Args:
        source: A run id, a `runs:/…` URI, or `None` for the latest finished run; or a bundle's directory, which is
            logged first unless it was logged before.
        name: The registered model; created if it does not exist.
        alias: An alias for the version.
        sign: A private key in PEM to sign the model with; `NEWSBERT_SIGNING_PASSPHRASE` has its passphrase.
        tracking_uri: MLflow's tracking URI; default: the configured one.
        experiment: The MLflow experiment; default: the configured one.

    Raises:
        NewsbertError: If there is no such model, or the registry refuses.
    """
    key = None if sign is None else Path(sign)
    if source is not None and Path(source).is_dir():
        parse_model_name(name)
        if alias is not None:
            parse_alias(alias)
        run_dir.find_interrupted(Path(source).parent)  # removes the remains of a training killed at its end
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
    """Yield a model for batch prediction, in this process or in several, and a text that identifies it.

    Args:
        reference: As `load` takes it.
        settings: The runtime, and the score below which a person must review an answer.
        shared: The number of processes, and the Ray cluster.
        on_note: Called with notes for the user.
        tracking_uri: MLflow's tracking URI; default: the configured one.

    Raises:
        NewsbertError: As in `load`, or if Ray is not available.
    """
    located = locate(reference, tracking_uri=tracking_uri)
    if located.choice is not None:
        on_note(f"the latest finished run is taken: {located.choice}")
    with contextlib.ExitStack() as stack:
        model: Model | Workers
        if shared.workers > 1:
            from newsbert.inference.batch import ray_workers as workers

            shipped = Bundle.read(located.path)
            shipped.verify()
            model = stack.enter_context(workers.started(shipped, located.name, settings, shared, on_note))
        else:
            model = Model.from_directory(
                located.path, located.name, settings.runtime, settings.review_threshold, cascade=settings.cascade
            )
        identity = f"bundle {model.bundle.digest} in {model.runtime}, review threshold {model.review_threshold}"
        yield model, f"{identity}, cascade {settings.cascade}"


def write_archive(
    reference: str | Path | None,
    directory: Path,
    settings: ServeSettings,
    *,
    name: str | None = None,
    tracking_uri: str | None = None,
) -> tuple[str, Path]:
    """Write a model's TorchServe archive into `directory` and return the model's name in answers and the path.

    Args:
        reference: As `load` takes it.
        directory: The archive's directory; created if it does not exist.
        settings: Workers, batching and runtime, which the archive contains.
        name: The model's name in answers. Default: the name in the registry; for a directory, whose own name can differ
            elsewhere, `bundle` and the start of its digest.
        tracking_uri: MLflow's tracking URI; default: the configured one.

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
        directory: The directory in which to create `news_classification`.
        settings: The runtime.
        tracking_uri: MLflow's tracking URI; default: the configured one.

    Raises:
        NewsbertError: If there is no such model, it was altered, or the directory exists or cannot be written.
    """
    located = locate(reference, tracking_uri=tracking_uri)
    bundle = Bundle.read(located.path)
    bundle.verify()
    model_directory = directory / protocol.SERVED_NAME
    runtime = resolve_runtime(bundle, settings.runtime)
    files = bundle.files(runtime)
    files[archive.CONFIG_NAME] = archive.model_config(located.name, settings, runtime)
    flavor.write_for_plugin(files, bundle.path / "model.safetensors", model_directory)
    return located.name, model_directory


def plugin_command(directory: Path) -> list[str]:
    """Return the command with which mlflow-torchserve deploys the output of `write_for_plugin`."""
    handler = Path(str(resources.files("newsbert.serving") / archive.HANDLER_NAME))
    return [
        "mlflow", "deployments", "create", "-t", "torchserve", "-m", str(directory), "--name", protocol.SERVED_NAME,
        "-C", f"HANDLER={handler}", "-C", "initial_workers=1", "-C", "synchronous=true",
    ]  # fmt: skip
