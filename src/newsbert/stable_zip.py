"""Zip files that are the same bytes whenever, wherever and by whom they are written."""

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

_EPOCH = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
_CHUNK_BYTES = 1024 * 1024


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
