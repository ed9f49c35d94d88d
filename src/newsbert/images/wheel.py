"""Build a wheel from the installed newsbert package, to install it in an image without a package index."""

import base64
import hashlib
import zipfile
from importlib import metadata
from pathlib import Path

from newsbert.core import package_files, zip_files

_WHEEL = "Wheel-Version: 1.0\nGenerator: newsbert\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_METADATA_FILES = ("METADATA", "entry_points.txt", "licenses/LICENSE")


def write(directory: Path) -> Path:
    """Write the wheel into `directory` and return its path.

    The same package gives the same bytes.

    Source: the binary distribution format, https://packaging.python.org/specifications/binary-distribution-format/
    """
    distribution = metadata.distribution("newsbert")
    info = f"newsbert-{distribution.version}.dist-info"
    package = Path(__file__).parents[1]
    content = {
        f"newsbert/{file.relative_to(package).as_posix()}": file.read_bytes()
        for file in package.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    content |= {f"newsbert/{name}": data for name, data in package_files.files().items()}
    for name in _METADATA_FILES:
        content[f"{info}/{name}"] = (distribution.read_text(name) or "").encode()
    # Drop the README from the metadata, so that a change of it does not cause a new image.
    content[f"{info}/METADATA"] = content[f"{info}/METADATA"].partition(b"\n\n")[0].rstrip() + b"\n"
    content[f"{info}/WHEEL"] = _WHEEL.encode()
    record = "".join(f"{name},sha256={_encode_digest(data)},{len(data)}\n" for name, data in sorted(content.items()))
    content[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    file = directory / f"newsbert-{distribution.version}-py3-none-any.whl"
    zip_files.write(file, content, zipfile.ZIP_DEFLATED)
    return file


def _encode_digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
