"""Whether a model archive holds what `archive.write` puts into one, and nothing else.

TorchServe unpacks an archive, runs the handler that its manifest names and does what its configuration says; so an
archive of somebody else's is a program. One that passes here holds data, and this package's own handler.
"""

import json
import stat
import struct
import zipfile
import zlib
from importlib import resources
from pathlib import Path
from typing import Any

from newsbert import archive
from newsbert.archive import CONFIG_NAME, HANDLER_NAME, MANIFEST_NAME
from newsbert.bundle import RUNTIME_FILES
from newsbert.errors import ModelError
from newsbert.settings import ServeSettings

_LOCAL = struct.Struct("<4s2xHH8xIIHH")
_ZIP64 = struct.Struct("<HHQQ")
_UTF8_NAMES = 0x800
_MAX_TEXT_BYTES = 1024 * 1024
_MODEL_KEYS = {"modelName", "modelVersion", "handler", "configFile"}
_MANIFEST_KEYS = {"createdOn", "runtime", "model", "archiverVersion"}


class _RefusedError(Exception):
    """What an archive holds that it must not."""


def check(file: Path) -> None:
    """Refuse an archive that could do anything but answer with its model.

    Raises:
        ModelError: If it holds another file, handler or setting than `archive.write` would give it, or is no archive.
    """
    runtime = archive.served(file).runtime
    try:
        with zipfile.ZipFile(file) as content, file.open("rb") as stream:
            _check_names([info.filename for info in content.infolist()], runtime)
            _check_entries(content, stream)
            _check_manifest(_json(content, MANIFEST_NAME))
            _check_configuration(_json(content, CONFIG_NAME))
            _check_handler(content)
    except (
        _RefusedError,
        OSError,
        LookupError,
        ValueError,
        TypeError,
        RuntimeError,
        struct.error,
        zlib.error,
        zipfile.BadZipFile,
    ) as error:
        hint = "serve the model itself, or write the archive again: newsbert archive MODEL"
        raise ModelError(f"{file} is not served: {error}", hint) from error


def _check_names(names: list[str], runtime: str) -> None:
    if runtime not in RUNTIME_FILES:
        raise _RefusedError(f"there is no runtime {runtime!r}")
    expected = {*RUNTIME_FILES[runtime], CONFIG_NAME, MANIFEST_NAME, HANDLER_NAME}
    for name in names:
        if name not in expected:
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


def _check_handler(content: zipfile.ZipFile) -> None:
    own = (resources.files("newsbert") / HANDLER_NAME).read_bytes()
    if content.getinfo(HANDLER_NAME).file_size != len(own) or content.read(HANDLER_NAME) != own:
        raise _RefusedError(f"its {HANDLER_NAME} is not that of this version of newsbert")


def _json(content: zipfile.ZipFile, name: str) -> Any:
    if content.getinfo(name).file_size > _MAX_TEXT_BYTES:
        raise _RefusedError(f"its {name} is too large")
    return json.loads(content.read(name))


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
    known = archive.model_config("", ServeSettings(), "")
    for name, value in values.items():
        if name not in known or (name != "newsbert" and type(value) is not int):
            raise _RefusedError(f"its {CONFIG_NAME} has {name!r}: {str(value)[:100]!r}")
    below = values["newsbert"].get("review_below", 0)
    if type(below) not in {int, float} or not 0 <= below <= 1:
        raise _RefusedError(f"its {CONFIG_NAME} has 'review_below': {str(below)[:100]!r}")
