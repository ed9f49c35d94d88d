"""Check that a model archive holds exactly what `archive.write` writes, and write it anew.

TorchServe unpacks an archive, runs the handler that its manifest names and applies its configuration. So an archive
from another source is executable code. An archive that passes this check holds only data, and this package's own
handler.

Java reads a zip file from its front, Python by the directory at its end: both may see different files in one archive.
YAML and JSON may see different values in one text. So TorchServe never gets the archive itself, but a new one of the
files and values that were checked.
"""

import json
import os
import stat
import zipfile
from importlib import resources
from pathlib import Path
from typing import Any

from newsbert.bundle import signing
from newsbert.bundle.bundle import COMPANION_FILE, RUNTIME_FILES
from newsbert.bundle.contract import CONTRACT_FILE, SIGNATURE_FILE
from newsbert.core import typed_json, zip_files
from newsbert.errors import ModelError
from newsbert.inference.runtime import CASCADES
from newsbert.serving.archive import CONFIG_NAME, HANDLER_NAME, MANIFEST_NAME

_HINT = "serve the model itself, or write the archive again: newsbert export archive MODEL"
_RANGES = {
    "minWorkers": (1, 1024),
    "maxWorkers": (1, 1024),
    "batchSize": (1, 4096),
    "maxBatchDelay": (0, 60_000),
    "jobQueueSize": (1, 100_000),
    "responseTimeout": (1, 3600),
    "startupTimeout": (1, 3600),
}
"""TorchServe's settings that an archive may have, with their minimum and maximum values."""
_OPTIONAL_FILES = {SIGNATURE_FILE, COMPANION_FILE}
_OPTIONS = {"model", "runtime", "workers", "review_threshold", "cascade"}
_MAX_TEXT_BYTES, _MAX_CONTRACT_BYTES = 2**20, 2**26
_MODEL_KEYS = {"modelName", "modelVersion", "handler", "configFile"}
_MANIFEST_KEYS = {"createdOn", "runtime", "model", "archiverVersion"}


class _RefusedError(Exception):
    """A reason to reject an archive."""


def take(file: Path, copy: Path) -> str | None:
    """Check an archive, write its files to a new one, and return the trusted key that signed its model.

    The server uses the new archive, so neither the name of `file` nor a change of it after the check matters.

    Args:
        file: The archive, from any source.
        copy: Path of the new archive, in a directory of this user only.

    Returns:
        The trusted key that signed its model; `None` if no keys are configured.

    Raises:
        ModelError: If it is not an archive, has another file, handler or setting than `archive.write` writes, if none
            of the configured trusted keys has signed it, or if it cannot be copied.
    """
    try:
        # Non-blocking: opening a named pipe would otherwise wait for a writer.
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as source:
            status = os.fstat(source.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ModelError(f"{file} is not a plain file", _HINT)
            with zipfile.ZipFile(source) as content:
                _check_entries(content.infolist(), status.st_size)
                texts = _read_texts(content)
                hint = "sign the model, then write its archive again: newsbert export archive MODEL"
                signed_by = signing.check(texts[CONTRACT_FILE], texts.get(SIGNATURE_FILE), str(file), hint)
                _write(copy, content, texts)
    except OSError as error:
        raise ModelError(f"{file} cannot be copied to be served: {error}", "check it and the disk: df -h") from error
    except (*zip_files.READ_ERRORS, _RefusedError, TypeError) as error:
        raise ModelError(f"{file} is not served: {error}", _HINT) from error
    return signed_by


def _check_entries(entries: list[zipfile.ZipInfo], size: int) -> None:
    """Check that the entries are plain files, and together no larger than the archive of `size` bytes."""
    for entry in entries:
        if stat.S_IFMT(entry.external_attr >> 16) not in {0, stat.S_IFREG}:
            raise _RefusedError(f"its {entry.filename[:200]!r} is not a plain file")
        if entry.compress_type != zipfile.ZIP_STORED:
            raise _RefusedError(f"its {entry.filename[:200]!r} is compressed")
    if sum(entry.file_size for entry in entries) > size:
        raise _RefusedError("its files are larger than the archive")


def _read_texts(content: zipfile.ZipFile) -> dict[str, bytes]:
    """Check names, settings, manifest and handler, and return the new archive's small files.

    They stay in memory, since the archive may change meanwhile.
    """
    configuration = _read_object(content, CONFIG_NAME)
    _check_configuration(configuration)
    _check_names(content.namelist(), configuration["newsbert"]["runtime"])
    manifest = _read_object(content, MANIFEST_NAME)
    _check_manifest(manifest)
    handler = (resources.files("newsbert.serving") / HANDLER_NAME).read_bytes()
    if _read(content, HANDLER_NAME) != handler:
        raise _RefusedError(f"its {HANDLER_NAME} is not that of this version of newsbert")
    signed = {name: _read(content, name) for name in (CONTRACT_FILE, SIGNATURE_FILE) if name in content.namelist()}
    return {
        CONFIG_NAME: json.dumps(configuration, indent=2).encode(),
        MANIFEST_NAME: json.dumps(manifest, indent=2).encode(),
        HANDLER_NAME: handler,
        **signed,
    }


def _write(copy: Path, content: zipfile.ZipFile, texts: dict[str, bytes]) -> None:
    try:
        zip_files.write(copy, {**{name: zip_files.Entry(content, name) for name in content.namelist()}, **texts})
    except BaseException:
        copy.unlink(missing_ok=True)
        raise


def _check_names(names: list[str], runtime: str) -> None:
    if runtime not in RUNTIME_FILES:
        raise _RefusedError(f"there is no runtime {runtime!r}")
    expected = {*RUNTIME_FILES[runtime], CONFIG_NAME, MANIFEST_NAME, HANDLER_NAME}
    for name in names:
        if name not in expected and (name not in _OPTIONAL_FILES or names.count(name) > 1):
            raise _RefusedError(f"it holds {name[:200]!r}")
    for name in sorted(expected):
        if names.count(name) != 1:
            raise _RefusedError(f"it holds {name!r} {names.count(name)} times")


def _read(content: zipfile.ZipFile, name: str) -> bytes:
    return zip_files.read_entry(content, name, _MAX_CONTRACT_BYTES if name == CONTRACT_FILE else _MAX_TEXT_BYTES)


def _read_object(content: zipfile.ZipFile, name: str) -> dict[str, Any]:
    return _check_object(typed_json.loads(_read(content, name).decode("utf-8")), name)


def _check_object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _RefusedError(f"its {name} is {value!r:.100}, not an object")
    return value


def _check_manifest(manifest: dict[str, Any]) -> None:
    model = _check_object(manifest["model"], "manifest's model")
    unknown = sorted({*manifest} - _MANIFEST_KEYS | {*model} - _MODEL_KEYS)
    if unknown:
        raise _RefusedError(f"its manifest has {unknown[0]!r}")
    for value, expected in (
        (model["handler"], HANDLER_NAME),
        (model["configFile"], CONFIG_NAME),
        (manifest["runtime"], "python"),
    ):
        if value != expected:
            raise _RefusedError(f"its manifest names {value!r} instead of {expected!r}")


def _check_configuration(values: dict[str, Any]) -> None:
    """Check that TorchServe's settings are only those that newsbert writes, all numbers: others install packages."""
    for name, value in values.items():
        if name == "newsbert":
            continue
        if name not in _RANGES or type(value) is not int:
            raise _RefusedError(f"its {CONFIG_NAME} has {name!r}: {str(value)[:100]!r}")
        minimum, maximum = _RANGES[name]
        if not minimum <= value <= maximum:
            raise _RefusedError(f"its {CONFIG_NAME} has {name!r}: {str(value)[:100]}, not from {minimum} to {maximum}")
    options = _check_object(values["newsbert"], f"{CONFIG_NAME}'s 'newsbert'")
    for name, value in options.items():
        if name not in _OPTIONS or (name in {"model", "runtime"} and not isinstance(value, str)):
            raise _RefusedError(f"its {CONFIG_NAME} has {name!r}: {str(value)[:100]!r}")
    review_threshold = options.get("review_threshold", 0)
    if type(review_threshold) not in {int, float} or not 0 <= review_threshold <= 1:
        raise _RefusedError(f"its {CONFIG_NAME} has 'review_threshold': {str(review_threshold)[:100]!r}")
    if options.get("cascade", CASCADES[0]) not in CASCADES:
        raise _RefusedError(f"its {CONFIG_NAME} has 'cascade': {str(options['cascade'])[:100]!r}")
    if not values["minWorkers"] == values["maxWorkers"] == options["workers"]:
        raise _RefusedError(f"its {CONFIG_NAME} has three numbers of workers that differ")
