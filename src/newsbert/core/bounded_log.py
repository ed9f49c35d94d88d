"""A log file that other programs append to, and that does not grow for ever."""

import contextlib
import os
import shutil
from pathlib import Path

MAX_BYTES = 10 * 2**20


def trim(file: Path) -> None:
    """Move the end of a log that is too long to `FILE.1`, in place of what was there; to be called every now and then.

    Whoever writes to it must append: it stays the same file.
    """
    with contextlib.suppress(OSError):
        size = file.stat().st_size
        if size <= MAX_BYTES:
            return
        before = file.with_name(f"{file.name}.1")
        before.unlink(missing_ok=True)
        with (
            file.open("rb") as source,
            os.fdopen(os.open(before, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target,
        ):
            source.seek(size - MAX_BYTES)
            shutil.copyfileobj(source, target)
        os.truncate(file, 0)
