"""From a bundle to a TorchServe model archive: what its runtime reads, the handler, and how to serve it."""

import contextlib
import json
import os
import shutil
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from newsbert import runtimes
from newsbert.bundle import CONTRACT_FILE, SERVING_FILES, Bundle
from newsbert.config import ServeSettings
from newsbert.errors import MissingExtraError, ModelError, NewsbertError

SERVED_NAME = "news_classification"
"""What the model is called in URLs: `/predictions/news_classification`."""

ARCHIVE_NAME = f"{SERVED_NAME}.mar"
CONFIG_NAME = "model-config.yaml"
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
        from model_archiver.model_packaging_utils import ModelExportUtils
    except ImportError as error:
        raise MissingExtraError("model_archiver", "serve") from error
    bundle.verify()
    names = SERVING_FILES if runtime == runtimes.DEFAULT else (*bundle.contract.files, CONTRACT_FILE)
    partial = directory / f".{ARCHIVE_NAME}.partial-{os.getpid()}"
    try:
        with tempfile.TemporaryDirectory(prefix="newsbert-archive-") as work, _handler_file() as handler:
            # The archiver's own command gathers the files in one directory for the whole machine, and takes commas,
            # brackets and stars in a path for something else; its parts do not.
            gathered = Path(work) / "content"
            gathered.mkdir()
            for file in (handler, *(bundle.path / each for each in names)):
                shutil.copyfile(file, gathered / file.name)
            # JSON is YAML, and the serving side need not install a YAML writer for it.
            config_text = json.dumps(model_config(name, settings, runtime), indent=2)
            (gathered / CONFIG_NAME).write_text(config_text, encoding="utf-8")
            manifest = ModelExportUtils.generate_manifest_json(
                ModelArchiverConfig(
                    model_name=SERVED_NAME, handler=handler.name, version="1.0", config_file=CONFIG_NAME
                )
            )
            # Stored, not compressed: weights do not get smaller, and unpacking them delays the start.
            ModelExportUtils.archive(work, SERVED_NAME, str(gathered), manifest, "zip-store")
            directory.mkdir(parents=True, exist_ok=True)
            shutil.move(Path(work) / ARCHIVE_NAME, partial)
            return partial.replace(directory / ARCHIVE_NAME)
    except (OSError, ModelArchiverError) as error:
        raise NewsbertError(f"the model archive cannot be written: {error}", "check the disk: df -h /tmp .") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


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
            options = json.loads(content.read(CONFIG_NAME))["newsbert"]
        return Served(str(options["model"]), str(options["runtime"]))
    except (
        OSError,
        LookupError,
        ValueError,
        TypeError,
        RuntimeError,
        EOFError,
        zlib.error,
        zipfile.BadZipFile,
    ) as error:
        raise ModelError(f"{archive} is no newsbert model archive: {error}", "newsbert serve locally MODEL") from error


def _handler_file() -> Any:
    """The handler's source, as a file for the archiver to copy."""
    return resources.as_file(resources.files("newsbert") / "handler.py")
