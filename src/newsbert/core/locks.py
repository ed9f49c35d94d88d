"""Work of which there is one at a time for a user of this machine, and directories of which it is known who lives."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from newsbert.core import environment, private_files
from newsbert.errors import NewsbertError, ServingError

_LOCK = "lock"


@contextlib.contextmanager
def exclusive(work: str, message: str, *, wait: bool = False) -> Iterator[None]:
    """Keep others out until the block ends, or this process does.

    Args:
        work: What they are kept out of, as a file's name.
        message: What to tell those who come.
        wait: Wait for another process instead of an error.

    Raises:
        ServingError: If there is somebody.
        NewsbertError: If the state directory cannot be written to.
    """
    directory = environment.state_dir()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = private_files.open_lock(directory / f"{work}.lock")
    except OSError as error:
        raise NewsbertError(f"{directory} cannot be written to: {error.strerror}", "set NEWSBERT_STATE_DIR") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise ServingError(message, "wait for it") from error
        yield


def acquire(directory: Path, note: str = "") -> TextIO:
    """Hold a directory until what this returns is closed, or this process ends.

    Args:
        directory: A new one of this process's own.
        note: For who finds that it is held no more.

    Raises:
        OSError: If it cannot be written to.
    """
    unlocked = directory / f"{_LOCK}.new"
    stream = unlocked.open("w", encoding="utf-8")
    stream.write(note)
    stream.flush()
    with contextlib.suppress(OSError):  # a file system without locks: then nobody else gets one either
        fcntl.flock(stream, fcntl.LOCK_EX)
    unlocked.rename(directory / _LOCK)  # only now can it be found, so nobody finds it without its lock
    return stream


def try_acquire(directory: Path) -> TextIO:
    """Hold a directory whose process has ended.

    Raises:
        OSError: If it lives (BlockingIOError), or the directory was never held, or is another user's.
    """
    private_files.check_owner(directory)
    stream = (directory / _LOCK).open("r+", encoding="utf-8")  # writable: over NFS an exclusive lock needs that
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stream.close()
        raise
    return stream


def iterate_stale(parent: Path, pattern: str) -> Iterator[tuple[Path, str]]:
    """Directories in `parent` whose processes have ended, and their notes; each is held until the next is asked for."""
    for directory in sorted(parent.glob(pattern)):
        with contextlib.suppress(OSError), try_acquire(directory) as stream:
            yield directory, stream.read()
