"""Files that appear whole: other processes see the old content or the new one."""

import os
import secrets
from pathlib import Path


def write_atomically(file: Path, content: str | bytes, *, mode: int = 0o666, durable: bool = False) -> None:
    """Write a file completely or not at all; never through a link of another user.

    Args:
        file: The file.
        content: Its content; text is encoded as UTF-8.
        mode: Its permissions, less those that the umask removes.
        durable: Flush the content to disk first, so that it also survives a power failure.

    Raises:
        OSError: If it cannot be written.
    """
    partial = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            if durable:
                stream.flush()
                os.fsync(stream)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def read_stamp(file: Path) -> tuple[int, ...]:
    """Return numbers that change when a file is replaced or written; none if there is no file."""
    try:
        status = file.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_ino, status.st_size


def sync(path: Path) -> None:
    """Flush the content of a file, or the entries of a directory, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
