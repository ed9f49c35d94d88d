"""Zip files that are the same bytes whenever, wherever and by whom they are written; and reading those of others."""

import shutil
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

_EPOCH = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
_CHUNK_BYTES = 1024 * 1024
READ_ERRORS = (OSError, LookupError, ValueError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile)
"""What `zipfile` raises of a file that somebody else made."""


def read_entry(archive: zipfile.ZipFile, name: str, max_bytes: int) -> bytes:
    """Return an entry's content, however much its directory says that it unpacks to.

    Raises:
        ValueError: If it has more than `max_bytes`.
        Exception: One of `READ_ERRORS` if it cannot be read.
    """
    with archive.open(name) as stream:
        content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"its {name} is too large")
    return content


def write(file: Path, content: Mapping[str, bytes | Path], compression: int = zipfile.ZIP_STORED) -> None:
    """Write `content` to `file`, in the order of its names.

    Args:
        file: The zip file; it is replaced.
        content: By name in the zip, the bytes or the file to copy them from; files are never held in memory.
        compression: `zipfile.ZIP_STORED`, or `ZIP_DEFLATED`, whose bytes depend on the zlib in use as well.

    Raises:
        OSError: If a file cannot be read or the zip not be written.
    """
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, source in sorted(content.items()):
            # A date, rights and a system of its own, where ZipFile would take the file's, the umask's and this one's.
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = _UNIX
            entry.external_attr = 0o644 << 16
            entry.compress_type = compression
            if isinstance(source, bytes):
                archive.writestr(entry, source)
                continue
            entry.file_size = source.stat().st_size  # tells early whether it needs the format for more than 2 GiB
            with source.open("rb") as stream, archive.open(entry, "w") as target:
                shutil.copyfileobj(stream, target, _CHUNK_BYTES)
