"""From a bundle to a TorchServe model archive: what its runtime reads, the handler, and how to serve it."""

import json
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from newsbert import runtimes
from newsbert.bundle import SERVING_FILES, Bundle
from newsbert.config import ServeSettings
from newsbert.errors import MissingExtraError, ModelError, NewsbertError

SERVED_NAME = "news_classification"
"""What the model is called in URLs: `/predictions/news_classification`."""

ARCHIVE_NAME = f"{SERVED_NAME}.mar"
RESPONSE_TIMEOUT_S = 60
STARTUP_TIMEOUT_S = 120


def model_config(name: str, settings: ServeSettings, runtime: str = runtimes.DEFAULT) -> dict[str, Any]:
    """The archive's `model-config.yaml`: TorchServe's batching and workers, and what the handler is to know.

    Args:
        name: What the answers say of the model, such as `BertModel/7`.
        settings: Workers and batching.
        runtime: Name of the runtime.
    """
    return {
        "minWorkers": settings.workers,
        "maxWorkers": settings.workers,
        "batchSize": settings.batch_size,
        "maxBatchDelay": settings.batch_delay_ms,
        "responseTimeout": RESPONSE_TIMEOUT_S,
        "startupTimeout": STARTUP_TIMEOUT_S,
        "newsbert": {"model": name, "runtime": runtime, "workers": settings.workers},
    }


def write(bundle: Bundle, directory: Path, name: str, settings: ServeSettings, runtime: str = runtimes.DEFAULT) -> Path:
    """Write the archive of a verified bundle into `directory` and return its path.

    Raises:
        ModelError: If the bundle was altered after training.
        NewsbertError: If the archive cannot be written.
    """
    try:
        from model_archiver.model_archiver_config import ModelArchiverConfig
        from model_archiver.model_archiver_error import ModelArchiverError
        from model_archiver.model_packaging import generate_model_archive
    except ImportError as error:
        raise MissingExtraError("model_archiver", "serve") from error
    bundle.verify()
    names = SERVING_FILES if runtime == runtimes.DEFAULT else tuple(file.name for file in bundle.path.iterdir())
    try:
        with tempfile.TemporaryDirectory(prefix="newsbert-archive-") as work, _handler_file() as handler:
            config_file = Path(work) / "model-config.yaml"
            # JSON is YAML, and the serving side need not install a YAML writer for it.
            config_file.write_text(json.dumps(model_config(name, settings, runtime), indent=2), encoding="utf-8")
            generate_model_archive(
                ModelArchiverConfig(
                    model_name=SERVED_NAME,
                    handler=str(handler),
                    version="1.0",
                    extra_files=",".join(str(bundle.path / each) for each in names),
                    config_file=str(config_file),
                    export_path=work,
                    archive_format="zip-store",  # weights do not compress, and unpacking them delays the start
                    force=True,
                )
            )
            directory.mkdir(parents=True, exist_ok=True)
            partial = directory / f".{ARCHIVE_NAME}.partial"
            shutil.move(str(Path(work) / ARCHIVE_NAME), partial)
            return partial.replace(directory / ARCHIVE_NAME)
    except (OSError, ModelArchiverError) as error:
        raise NewsbertError(f"the model archive cannot be written: {error}", "check the disk: df -h /tmp .") from error


@dataclass(frozen=True)
class Served:
    """What an archive says of itself: the model's name and the runtime that its handler loads."""

    model: str
    runtime: str


def served(archive: Path) -> Served:
    """Read what `write` put into an archive's configuration.

    Raises:
        ModelError: If it is no archive that newsbert wrote.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            options = json.loads(content.read("model-config.yaml"))["newsbert"]
        return Served(str(options["model"]), str(options["runtime"]))
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise ModelError(f"{archive} is no newsbert model archive: {error}", "newsbert serve locally MODEL") from error


def _handler_file() -> Any:
    """The handler's source, as a file for the archiver to copy."""
    return resources.as_file(resources.files("newsbert") / "handler.py")
