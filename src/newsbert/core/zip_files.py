"""Writing of reproducible zip files, and reading of foreign ones.

The bytes of a written file do not depend on the time, the machine or the user.
"""

import shutil
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_EPOCH = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
_CHUNK_BYTES = 1024 * 1024
READ_ERRORS = (
    OSError, LookupError, ValueError, RuntimeError, OverflowError, EOFError, struct.error, zipfile.BadZipFile,
)  # fmt: skip
"""Errors that `zipfile` raises for a foreign file."""


@dataclass(frozen=True)
class Entry:
    """An entry of an open zip file, which `write` copies into another one."""

    archive: zipfile.ZipFile
    name: str

    def open(self) -> IO[bytes]:
        """Open its content for reading."""
        return self.archive.open(self.name)

    @property
    def size(self) -> int:
        """The size of its content that the zip's directory states; no more is read."""
        return self.archive.getinfo(self.name).file_size


def read_entry(archive: zipfile.ZipFile, name: str, max_bytes: int) -> bytes:
    """Return an entry's content, limited in size whatever the zip's directory states.

    Raises:
        ValueError: If it has more than `max_bytes`, or is compressed: zipfile unpacks blocks of bzip2 and LZMA whole.
        Exception: One of `READ_ERRORS` if it cannot be read.
    """
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"its {name!r} is compressed")
    with archive.open(name) as stream:
        content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"its {name!r} is too large")
    return content


def write(file: Path, content: Mapping[str, bytes | Path | Entry], compression: int = zipfile.ZIP_STORED) -> None:
    """Write `content` to `file`, sorted by name.

    Args:
        file: The zip file; it is replaced.
        content: Bytes, or the file or entry to copy, by name in the zip; these are never loaded into memory whole.
        compression: `zipfile.ZIP_STORED`, or `ZIP_DEFLATED`, whose bytes also depend on the zlib in use.

    Raises:
        OSError: If a file cannot be read or the zip cannot be written.
        Exception: One of `READ_ERRORS` if an entry cannot be read.
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
            # The size decides early on the format for more than 2 GiB.
            entry.file_size = source.size if isinstance(source, Entry) else source.stat().st_size
            opened = source.open() if isinstance(source, Entry) else source.open("rb")
            with opened as stream, archive.open(entry, "w") as target:
                shutil.copyfileobj(stream, target, _CHUNK_BYTES)
