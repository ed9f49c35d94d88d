"""Temporary directories of this process; later processes remove those of killed processes."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from newsbert.core import environment, locks
from newsbert.errors import NewsbertError

_PREFIX = ".newsbert-tmp-"
_FILES = "files"


@contextlib.contextmanager
def directory(parent: Path | None = None) -> Iterator[Path]:
    """Make a directory that is removed at the end; if the process is killed, the next one removes it.

    Args:
        parent: Its parent directory; the temporary directory by default.

    Raises:
        OSError: If it cannot be made.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    sweep(parent)
    with own(parent) as files:
        yield files


@contextlib.contextmanager
def own(parent: Path) -> Iterator[Path]:
    """Make a directory that is removed at the end, and leave those of killed processes to the caller.

    Raises:
        OSError: If it cannot be made.
    """
    owned, lock = _make(parent)
    with lock:
        files = owned / _FILES
        try:
            files.mkdir(mode=0o700)
            yield files
        finally:
            remove(files)


@contextlib.contextmanager
def for_libraries() -> Iterator[None]:
    """Move the temporary files of libraries to such a directory until the block ends."""
    with directory() as owned:
        before, tempfile.tempdir = tempfile.tempdir, str(owned)
        try:
            yield
        finally:
            tempfile.tempdir = before


def sweep_all() -> None:
    """Remove the remains of killed processes from the temporary directory and from the cache."""
    with contextlib.suppress(OSError, NewsbertError):
        sweep(Path(tempfile.gettempdir()))
        for parent in environment.cache_dir().iterdir():
            sweep(parent)


def sweep(parent: Path) -> None:
    """Remove the remains of killed processes from a directory."""
    for files in abandoned(parent):
        remove(files)


def abandoned(parent: Path) -> Iterator[Path]:
    """Yield the directories in `parent` whose processes were killed; one is locked until the next iteration.

    Only this user's directories are considered, and links are not followed: other users may write to the temporary
    directory, too.
    """
    for owned in sorted(parent.glob(f"{_PREFIX}*")):
        with contextlib.suppress(OSError):
            try:
                lock = locks.try_acquire(owned)
            except FileNotFoundError:
                owned.rmdir()  # its process was killed at once; a live one makes another directory
                continue
            with lock:
                yield owned / _FILES


def remove(files: Path) -> None:
    """Remove a directory from `directory` or `abandoned`."""
    shutil.rmtree(files, ignore_errors=True)
    if not files.exists():  # otherwise the lock stays, so that the next process tries again
        with contextlib.suppress(OSError):
            (files.parent / locks.LOCK).unlink(missing_ok=True)
            files.parent.rmdir()


def _make(parent: Path) -> tuple[Path, TextIO]:
    while True:
        owned = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as stack:
            lock = stack.enter_context((owned / locks.LOCK).open("x", encoding="utf-8"))
            with contextlib.suppress(OSError):  # a file system without locks: then no other process gets one either
                locks.lock(lock)
            (owned / locks.LOCK).stat()  # missing if another process has swept before the lock was taken
            stack.pop_all()
            return owned, lock
