"""Whether a model archive holds what `archive.write` puts into one, and nothing else.

TorchServe unpacks an archive, runs the handler that its manifest names and does what its configuration says; so an
archive of somebody else's is a program. One that passes here holds data, and this package's own handler.
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

_LOCAL = struct.Struct("<4s2xHH8xIIHH")
_ZIP64 = struct.Struct("<HHQQ")
_UTF8_NAMES = 0x800
_HINT = "serve the model itself, or write the archive again: newsbert archive MODEL"
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
"""TorchServe's settings that an archive may bring, and their least and largest values."""
_OPTIONS = {"model", "runtime", "workers", "review_below"}
_MAX_TEXT_BYTES = 1024 * 1024
_MODEL_KEYS = {"modelName", "modelVersion", "handler", "configFile"}
_MANIFEST_KEYS = {"createdOn", "runtime", "model", "archiverVersion"}


class _RefusedError(Exception):
    """What an archive holds that it must not."""


def take(file: Path, copy: Path) -> str | None:
    """Copy an archive into a private directory, check the copy and return which trusted key has signed its model.

    What is served is the copy: neither the name of `file` nor a change of it after the check matters.

    Args:
        file: Somebody's archive.
        copy: Where it goes; in a directory of this user alone.

    Raises:
        ModelError: If it could do anything but answer with its model, is not signed by a trusted key where there are
            some, or cannot be copied.
    """
    try:
        # Not blocking: opened for reading, a named pipe would wait for a writer.
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as source:
            found = os.fstat(source.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ModelError(f"{file} is not a plain file", _HINT)
            with copy.open("xb") as target:
                _copy(source, target, found.st_size)
    except OSError as error:
        raise ModelError(f"{file} cannot be copied to be served: {error}", "check it and the disk: df -h") from error
    return check(copy, file)


def _copy(source: BinaryIO, target: BinaryIO, size: int) -> None:
    """Copy `size` bytes at most: a file that grows meanwhile does not fill the disk."""
    while size > 0 and (block := source.read(min(size, _BLOCK_BYTES))):
        target.write(block)
        size -= len(block)


def check(file: Path, name: Path | None = None) -> str | None:
    """Refuse an archive that could do anything but answer with its model.

    Args:
        file: The archive.
        name: What errors call it; `file` if nothing else.

    Returns:
        The trusted key that signed its model; nothing if no keys are set.

    Raises:
        ModelError: If it holds another file, handler or setting than `archive.write` would give it, is not signed by a
            trusted key where there are some, or is no archive.
    """
    runtime = archive.served(file, name).runtime
    try:
        with zipfile.ZipFile(file) as content, file.open("rb") as stream:
            _check_names([info.filename for info in content.infolist()], runtime)
            _check_entries(content, stream)
            signed_by = _check_signature(content, str(name or file))
            _check_manifest(_json(content, MANIFEST_NAME))
            _check_configuration(_json(content, CONFIG_NAME))
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
    """Check that who reads from the front, as Java does, finds the entries that the directory at the end names."""
    offset = 0
    for info in sorted(content.infolist(), key=lambda each: each.header_offset):
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in {0, stat.S_IFREG}:
            raise _RefusedError(f"its {info.filename!r} is not a plain file")
        stream.seek(info.header_offset)
        signature, flags, method, packed, size, name_bytes, extra_bytes = _LOCAL.unpack(stream.read(_LOCAL.size))
        name, extra = stream.read(name_bytes), stream.read(extra_bytes)
        if size == packed == 0xFFFFFFFF:
            _, _, size, packed = _ZIP64.unpack(extra)
        sizes = {size, packed, info.file_size, info.compress_size}
        plain = signature == b"PK\3\4" and method == zipfile.ZIP_STORED and not flags & ~_UTF8_NAMES
        if info.header_offset != offset or not plain or len(sizes) > 1 or name != info.filename.encode():
            raise _RefusedError(f"its entry {info.filename!r} is not as newsbert writes it")
        offset += _LOCAL.size + name_bytes + extra_bytes + size
    if offset != content.start_dir:
        raise _RefusedError("it holds more than its directory says")


def _check_signature(content: zipfile.ZipFile, name: str) -> str | None:
    signature = _read_text(content, SIGNATURE_FILE) if SIGNATURE_FILE in content.namelist() else None
    hint = "sign the model, then write its archive again: newsbert archive MODEL"
    return signing.check(content.read(CONTRACT_FILE), signature, name, hint)


def _check_handler(content: zipfile.ZipFile) -> None:
    own = (resources.files("newsbert.serving") / HANDLER_NAME).read_bytes()
    if content.getinfo(HANDLER_NAME).file_size != len(own) or content.read(HANDLER_NAME) != own:
        raise _RefusedError(f"its {HANDLER_NAME} is not that of this version of newsbert")


def _read_text(content: zipfile.ZipFile, name: str) -> bytes:
    if content.getinfo(name).file_size > _MAX_TEXT_BYTES:
        raise _RefusedError(f"its {name} is too large")
    return content.read(name)


def _json(content: zipfile.ZipFile, name: str) -> Any:
    return typed_json.loads(_read_text(content, name).decode("utf-8"))


def _check_manifest(manifest: Any) -> None:
    model = manifest["model"]
    unknown = sorted({*manifest} - _MANIFEST_KEYS | {*model} - _MODEL_KEYS)
    if unknown:
        raise _RefusedError(f"its manifest has {unknown[0]!r}")
    for said, expected in (
        (model["handler"], HANDLER_NAME),
        (model["configFile"], CONFIG_NAME),
        (manifest["runtime"], "python"),
    ):
        if said != expected:
            raise _RefusedError(f"its manifest names {said!r} instead of {expected!r}")


def _check_configuration(values: Any) -> None:
    """Of TorchServe's settings only those that newsbert gives, and they are numbers: others install packages."""
    for name, value in values.items():
        if name == "newsbert":
            continue
        if name not in _RANGES or type(value) is not int:
            raise _RefusedError(f"its {CONFIG_NAME} has {name!r}: {str(value)[:100]!r}")
        least, most = _RANGES[name]
        if not least <= value <= most:
            raise _RefusedError(f"its {CONFIG_NAME} has {name!r}: {str(value)[:100]}, not from {least} to {most}")
    for name, value in values["newsbert"].items():
        if name not in _OPTIONS:
            raise _RefusedError(f"its {CONFIG_NAME} has {name!r}: {str(value)[:100]!r}")
    below = values["newsbert"].get("review_below", 0)
    if type(below) not in {int, float} or not 0 <= below <= 1:
        raise _RefusedError(f"its {CONFIG_NAME} has 'review_below': {str(below)[:100]!r}")
    if not values["minWorkers"] == values["maxWorkers"] == values["newsbert"]["workers"]:
        raise _RefusedError(f"its {CONFIG_NAME} has three numbers of workers that differ")
