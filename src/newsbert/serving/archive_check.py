"""Check that a model archive holds exactly what `archive.write` writes.

TorchServe unpacks an archive, runs the handler that its manifest names and applies its configuration. So an archive
from another source is executable code. An archive that passes this check holds only data, and this package's own
handler.
"""

import os
import stat
import struct
import zipfile
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO

from newsbert.bundle import signing
from newsbert.bundle.bundle import RUNTIME_FILES
from newsbert.bundle.contract import CONTRACT_FILE, SIGNATURE_FILE
from newsbert.core import typed_json, zip_files
from newsbert.errors import ModelError
from newsbert.serving import archive
from newsbert.serving.archive import CONFIG_NAME, HANDLER_NAME, MANIFEST_NAME

_LOCAL_HEADER = struct.Struct("<4s2xHH8xIIHH")
_ZIP64_EXTRA = struct.Struct("<HHQQ")
_UTF8_NAMES = 0x800
_HINT = "serve the model itself, or write the archive again: newsbert export archive MODEL"
_BLOCK_BYTES = 1024 * 1024
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
_OPTIONS = {"model", "runtime", "workers", "review_threshold"}
_MAX_TEXT_BYTES = 1024 * 1024
_MODEL_KEYS = {"modelName", "modelVersion", "handler", "configFile"}
_MANIFEST_KEYS = {"createdOn", "runtime", "model", "archiverVersion"}


class _RefusedError(Exception):
    """A reason to reject an archive."""


def take(file: Path, copy: Path) -> str | None:
    """Copy an archive into a private directory, check the copy, and return the trusted key that signed its model.

    The server uses the copy, so neither the name of `file` nor a change of it after the check matters.

    Args:
        file: The archive, from any source.
        copy: Path of the copy, in a directory of this user only.

    Raises:
        ModelError: If the archive could do more than answer with its model, if none of the configured trusted keys has
            signed it, or if it cannot be copied.
    """
    try:
        # Non-blocking: opening a named pipe would otherwise wait for a writer.
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as source:
            status = os.fstat(source.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ModelError(f"{file} is not a plain file", _HINT)
            with copy.open("xb") as target:
                _copy(source, target, status.st_size)
    except OSError as error:
        raise ModelError(f"{file} cannot be copied to be served: {error}", "check it and the disk: df -h") from error
    return check(copy, file)


def _copy(source: BinaryIO, target: BinaryIO, size: int) -> None:
    """Copy at most `size` bytes: a file that grows meanwhile must not fill the disk."""
    while size > 0 and (block := source.read(min(size, _BLOCK_BYTES))):
        target.write(block)
        size -= len(block)


def check(file: Path, name: Path | None = None) -> str | None:
    """Reject an archive that could do more than answer with its model.

    Args:
        file: The archive.
        name: Name in error messages; `file` if `None`.

    Returns:
        The trusted key that signed its model; `None` if no keys are configured.

    Raises:
        ModelError: If it has another file, handler or setting than `archive.write` writes, if none of the configured
            trusted keys has signed it, or if it is not an archive.
    """
    runtime = archive.served(file, name).runtime
    try:
        with zipfile.ZipFile(file) as content, file.open("rb") as stream:
            _check_names([info.filename for info in content.infolist()], runtime)
            _check_entries(content, stream)
            signed_by = _check_signature(content, str(name or file))
            _check_manifest(_read_json(content, MANIFEST_NAME))
            _check_configuration(_read_json(content, CONFIG_NAME))
            _check_handler(content)
    except (*zip_files.READ_ERRORS, _RefusedError, TypeError, struct.error) as error:
        raise ModelError(f"{name or file} is not served: {error}", _HINT) from error
    return signed_by


def _check_names(names: list[str], runtime: str) -> None:
    if runtime not in RUNTIME_FILES:
        raise _RefusedError(f"there is no runtime {runtime!r}")
    expected = {*RUNTIME_FILES[runtime], CONFIG_NAME, MANIFEST_NAME, HANDLER_NAME}
    for name in names:
        if name not in expected and (name != SIGNATURE_FILE or names.count(name) > 1):
            raise _RefusedError(f"it holds {name[:200]!r}")
    for name in sorted(expected):
        if names.count(name) != 1:
            raise _RefusedError(f"it holds {name!r} {names.count(name)} times")


def _check_entries(content: zipfile.ZipFile, stream: Any) -> None:
    """Check that a reader from the front, such as Java, sees the same entries as the directory at the end."""
    offset = 0
    for info in sorted(content.infolist(), key=lambda each: each.header_offset):
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in {0, stat.S_IFREG}:
            raise _RefusedError(f"its {info.filename!r} is not a plain file")
        stream.seek(info.header_offset)
        signature, flags, method, packed, size, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(
            stream.read(_LOCAL_HEADER.size)
        )
        name, extra = stream.read(name_bytes), stream.read(extra_bytes)
        if size == packed == 0xFFFFFFFF:
            _, _, size, packed = _ZIP64_EXTRA.unpack(extra)
        sizes = {size, packed, info.file_size, info.compress_size}
        plain = signature == b"PK\3\4" and method == zipfile.ZIP_STORED and not flags & ~_UTF8_NAMES
        if info.header_offset != offset or not plain or len(sizes) > 1 or name != info.filename.encode():
            raise _RefusedError(f"its entry {info.filename!r} is not as newsbert writes it")
        offset += _LOCAL_HEADER.size + name_bytes + extra_bytes + size
    if offset != content.start_dir:
        raise _RefusedError("it holds more than its directory says")


def _check_signature(content: zipfile.ZipFile, name: str) -> str | None:
    signature = _read_text(content, SIGNATURE_FILE) if SIGNATURE_FILE in content.namelist() else None
    hint = "sign the model, then write its archive again: newsbert export archive MODEL"
    return signing.check(content.read(CONTRACT_FILE), signature, name, hint)


def _check_handler(content: zipfile.ZipFile) -> None:
    own = (resources.files("newsbert.serving") / HANDLER_NAME).read_bytes()
    if content.getinfo(HANDLER_NAME).file_size != len(own) or content.read(HANDLER_NAME) != own:
        raise _RefusedError(f"its {HANDLER_NAME} is not that of this version of newsbert")


def _read_text(content: zipfile.ZipFile, name: str) -> bytes:
    if content.getinfo(name).file_size > _MAX_TEXT_BYTES:
        raise _RefusedError(f"its {name} is too large")
    return content.read(name)


def _read_json(content: zipfile.ZipFile, name: str) -> Any:
    return typed_json.loads(_read_text(content, name).decode("utf-8"))


def _check_manifest(manifest: Any) -> None:
    model = manifest["model"]
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


def _check_configuration(values: Any) -> None:
    """Check that TorchServe's settings are only those that newsbert writes, all numbers: others install packages."""
    for name, value in values.items():
        if name == "newsbert":
            continue
        if name not in _RANGES or type(value) is not int:
            raise _RefusedError(f"its {CONFIG_NAME} has {name!r}: {str(value)[:100]!r}")
        minimum, maximum = _RANGES[name]
        if not minimum <= value <= maximum:
            raise _RefusedError(f"its {CONFIG_NAME} has {name!r}: {str(value)[:100]}, not from {minimum} to {maximum}")
    for name, value in values["newsbert"].items():
        if name not in _OPTIONS:
            raise _RefusedError(f"its {CONFIG_NAME} has {name!r}: {str(value)[:100]!r}")
    review_threshold = values["newsbert"].get("review_threshold", 0)
    if type(review_threshold) not in {int, float} or not 0 <= review_threshold <= 1:
        raise _RefusedError(f"its {CONFIG_NAME} has 'review_threshold': {str(review_threshold)[:100]!r}")
    if not values["minWorkers"] == values["maxWorkers"] == values["newsbert"]["workers"]:
        raise _RefusedError(f"its {CONFIG_NAME} has three numbers of workers that differ")
