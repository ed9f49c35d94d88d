"""TorchServe model archives: the files that a bundle's runtime reads, the handler, and the configuration."""

import json
import zipfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from newsbert.bundle.bundle import Bundle
from newsbert.core import temporary, zip_files
from newsbert.core.installation import MissingExtraError
from newsbert.core.settings import ServeSettings
from newsbert.errors import ModelError, NewsbertError
from newsbert.inference.runtime import resolve_runtime
from newsbert.serving.protocol import SERVED_NAME

ARCHIVE_NAME = f"{SERVED_NAME}.mar"
CONFIG_NAME = "model-config.yaml"
HANDLER_NAME = "handler.py"
MANIFEST_NAME = "MAR-INF/MANIFEST.json"
RESPONSE_TIMEOUT_S = 60
STARTUP_TIMEOUT_S = 120
_MAX_CONFIG_BYTES = 2**20


def model_config(name: str, settings: ServeSettings, runtime: str) -> bytes:
    """Return the archive's `model-config.yaml`: TorchServe's batching and workers, and the handler's options.

    Args:
        name: The model's name in answers, such as `BertModel/7`.
        settings: Workers, batching and, where they are set, the threshold for reviews and the cascade.
        runtime: Name of the runtime.
    """
    options: dict[str, object] = {"model": name, "runtime": runtime, "workers": settings.workers}
    if settings.review_threshold is not None:
        options["review_threshold"] = settings.review_threshold
    if settings.cascade != ServeSettings.cascade:
        options["cascade"] = settings.cascade
    configuration = {
        "minWorkers": settings.workers,
        "maxWorkers": settings.workers,
        "batchSize": settings.batch_size,
        "maxBatchDelay": settings.batch_delay_ms,
        "jobQueueSize": settings.queue_size,
        "responseTimeout": RESPONSE_TIMEOUT_S,
        "startupTimeout": STARTUP_TIMEOUT_S,
        "newsbert": options,
    }
    # JSON is YAML, and the serving side need not install a YAML writer for it.
    return json.dumps(configuration, indent=2).encode()


def write(
    bundle: Bundle,
    directory: Path,
    name: str,
    settings: ServeSettings,
    *,
    served_name: str = SERVED_NAME,
    version: str = "1.0",
    file_name: str = ARCHIVE_NAME,
) -> Path:
    """Write the archive of a verified bundle into `directory` and return its path.

    The archive is reproducible: the same bundle and the same arguments give the same bytes.

    Args:
        bundle: The model's bundle.
        directory: Target directory; created if it is missing.
        name: The model's name in answers, such as `BertModel/7`.
        settings: Workers and batching, the runtime, and the threshold for reviews if not the model's.
        served_name: The model's name in URLs.
        version: TorchServe's version of the served model.
        file_name: The archive's file name.

    Raises:
        UsageError: If there is no such runtime.
        ModelError: If the bundle was altered after training, or has no graph for the runtime.
        NewsbertError: If the archive cannot be written.
    """
    runtime = resolve_runtime(bundle, settings.runtime)
    bundle.verify(only=bundle.names(runtime))
    content = bundle.files(runtime)
    content[CONFIG_NAME] = model_config(name, settings, runtime)
    content[MANIFEST_NAME] = _make_manifest(served_name, version)
    content[HANDLER_NAME] = (resources.files("newsbert.serving") / HANDLER_NAME).read_bytes()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with temporary.directory(directory) as work:
            # Stored, not compressed: weights do not get smaller, and unpacking them delays the start.
            zip_files.write(work / file_name, content)
            return (work / file_name).replace(directory / file_name)
    except OSError as error:
        raise NewsbertError(f"the model archive cannot be written: {error}", "check the disk: df -h .") from error


def _make_manifest(served_name: str, version: str) -> bytes:
    """Return the archive's manifest, as TorchServe's archiver writes it except for the time."""
    try:
        from model_archiver.model_archiver_config import ModelArchiverConfig
        from model_archiver.model_packaging_utils import ModelExportUtils
    except ImportError as error:
        raise MissingExtraError("model_archiver", "serve") from error
    options = ModelArchiverConfig(
        model_name=served_name, handler=HANDLER_NAME, version=version, config_file=CONFIG_NAME
    )
    manifest = json.loads(ModelExportUtils.generate_manifest_json(options))
    manifest["createdOn"] = "01/01/1980 00:00:00"  # TorchServe complains if it is missing
    return json.dumps(manifest, indent=2).encode()


@dataclass(frozen=True)
class ArchiveInfo:
    """Facts from an archive's configuration: the model's name and the runtime that its handler loads."""

    model: str
    runtime: str


def served(archive: Path) -> ArchiveInfo:
    """Read the model's name and runtime from an archive's configuration.

    Raises:
        ModelError: If it is not an archive from newsbert.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            options = json.loads(zip_files.read_entry(content, CONFIG_NAME, _MAX_CONFIG_BYTES))["newsbert"]
        return ArchiveInfo(str(options["model"]), str(options["runtime"]))
    except (*zip_files.READ_ERRORS, TypeError) as error:
        raise ModelError(f"{archive} is no newsbert model archive: {error}", "newsbert serve locally MODEL") from error
