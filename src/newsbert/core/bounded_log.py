"""Log files of limited size, to which other programs append."""

import contextlib
import os
import shutil
from pathlib import Path

MAX_BYTES = 10 * 2**20


def trim(file: Path) -> None:
    """Move the end of a log that is too long to `FILE.1`, replacing that file; call this regularly.

    Writers must open the log in append mode: it stays the same file. What they write between its copying and its
    truncation is lost, as with logrotate's `copytruncate`.
    """
    with contextlib.suppress(OSError):
        size = file.stat().st_size
        if size <= MAX_BYTES:
            return
        backup = file.with_name(f"{file.name}.1")
        backup.unlink(missing_ok=True)
        with (
            file.open("rb") as source,
            os.fdopen(os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target,
        ):
            source.seek(size - MAX_BYTES)
            shutil.copyfileobj(source, target)
        os.truncate(file, 0)
