"""Locks: for work that a user may run only once at a time on a machine, and for directories of running processes."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from newsbert.core import environment, private_files
from newsbert.errors import NewsbertError, ServingError

LOCK = "lock"
"""Name of the lock file in a directory."""


def lock(stream: TextIO, busy: NewsbertError | None = None) -> None:
    """Lock an open file until it is closed, or this process ends.

    Args:
        stream: The file.
        busy: Error to raise if another process has the lock; if `None`, wait for that process.

    Raises:
        NewsbertError: `busy`.
        OSError: If the file system has no locks.
    """
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
    except BlockingIOError as error:
        assert busy is not None
        raise busy from error


@contextlib.contextmanager
def exclusive(work: str, message: str, *, wait: bool = False) -> Iterator[None]:
    """Lock some work against other processes until the block ends, or this process does.

    Args:
        work: Name of the work, used as a file name.
        message: Error message for other processes.
        wait: Wait for another process instead of raising an error.

    Raises:
        ServingError: If another process has the lock.
        NewsbertError: If the state directory cannot be written to.
    """
    directory = environment.state_dir()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        stream = private_files.open_lock(directory / f"{work}.lock")
    except OSError as error:
        raise NewsbertError(f"{directory} cannot be written to: {error.strerror}", "set NEWSBERT_STATE_DIR") from error
    with stream:
        lock(stream, None if wait else ServingError(message, "wait for it"))
        yield


def acquire(directory: Path, note: str = "") -> TextIO:
    """Lock a directory until the returned stream is closed, or this process ends.

    Args:
        directory: A new directory of this process.
        note: Message for the process that later finds the directory unlocked.

    Raises:
        OSError: If the directory cannot be written to.
    """
    unlocked = directory / f"{LOCK}.new"
    stream = unlocked.open("w", encoding="utf-8")
    stream.write(note)
    stream.flush()
    with contextlib.suppress(OSError):  # a file system without locks: then no other process gets one either
        lock(stream)
    unlocked.rename(directory / LOCK)  # visible only now, so that no process sees it unlocked
    return stream


def try_acquire(directory: Path) -> TextIO:
    """Lock a directory whose process has ended; links are not followed.

    Raises:
        OSError: If the process runs (BlockingIOError), or the directory was never locked, or is another user's.
    """
    private_files.check_owner(directory)
    # For writing: an exclusive lock over NFS requires it.
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    stream = os.fdopen(descriptor, "r+", encoding="utf-8")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stream.close()
        raise
    return stream


def iterate_stale(parent: Path, pattern: str) -> Iterator[tuple[Path, str]]:
    """Yield directories in `parent` whose processes have ended, with their notes.

    A directory is locked until the next iteration.
    """
    for directory in sorted(parent.glob(pattern)):
        with contextlib.suppress(OSError), try_acquire(directory) as stream:
            yield directory, stream.read()
