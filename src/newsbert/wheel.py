"""Newsbert as a wheel, made from the installed package: how it enters an image without an index."""

import base64
import hashlib
import zipfile
from importlib import metadata
from importlib.resources.abc import Traversable
from pathlib import Path

from newsbert import image, stable_zip

_WHEEL = "Wheel-Version: 1.0\nGenerator: newsbert\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_METADATA_FILES = ("METADATA", "entry_points.txt", "licenses/LICENSE")


def write(directory: Path) -> Path:
    """Write the wheel into `directory` and return its path; the same package gives the same bytes.

    Source: the binary distribution format, https://packaging.python.org/specifications/binary-distribution-format/
    """
    distribution = metadata.distribution("newsbert")
    info = f"newsbert-{distribution.version}.dist-info"
    package = Path(__file__).parent
    content = {
        f"newsbert/{file.relative_to(package).as_posix()}": file.read_bytes()
        for file in package.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    content |= {f"newsbert/docker/{file.name}": file.read_bytes() for file in _docker_files()}
    for name in _METADATA_FILES:
        content[f"{info}/{name}"] = (distribution.read_text(name) or "").encode()
    content[f"{info}/WHEEL"] = _WHEEL.encode()
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in sorted(content.items()))
    content[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    file = directory / f"newsbert-{distribution.version}-py3-none-any.whl"
    stable_zip.write(file, content, zipfile.ZIP_DEFLATED)
    return file


def _docker_files() -> list[Traversable]:
    return sorted((file for file in image.docker_directory().iterdir() if file.is_file()), key=lambda file: file.name)


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
