"""Writing of reproducible zip files, and reading of foreign ones.

The bytes of a written file do not depend on the time, the machine or the user.
"""

import shutil
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

_EPOCH = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
_CHUNK_BYTES = 1024 * 1024
READ_ERRORS = (OSError, LookupError, ValueError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile)
"""Errors that `zipfile` raises for a foreign file."""


def read_entry(archive: zipfile.ZipFile, name: str, max_bytes: int) -> bytes:
    """Return an entry's content, limited in size whatever the zip's directory states.

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
    """Write `content` to `file`, sorted by name.

    Args:
        file: The zip file; it is replaced.
        content: Bytes, or the file to copy, by name in the zip; files are never loaded into memory whole.
        compression: `zipfile.ZIP_STORED`, or `ZIP_DEFLATED`, whose bytes also depend on the zlib in use.

    Raises:
        OSError: If a file cannot be read or the zip cannot be written.
    """
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, source in sorted(content.items()):
            # Fixed date, permissions and system: ZipFile would take those of the file, the umask and this machine.
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = _UNIX
            entry.external_attr = 0o644 << 16
            entry.compress_type = compression
            if isinstance(source, bytes):
                archive.writestr(entry, source)
                continue
            entry.file_size = source.stat().st_size  # decides early on the format for more than 2 GiB
            with source.open("rb") as stream, archive.open(entry, "w") as target:
                shutil.copyfileobj(stream, target, _CHUNK_BYTES)
