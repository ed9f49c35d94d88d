"""Directories of this process alone: whoever comes next removes those whose processes were killed."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from newsbert.core import environment, private_files
from newsbert.errors import NewsbertError

_PREFIX = ".newsbert-tmp-"
_LOCK, _FILES = "lock", "files"


@contextlib.contextmanager
def directory(parent: Path | None = None) -> Iterator[Path]:
    """Make a directory that is gone at the end; where the process is killed, the next one removes it.

    Args:
        parent: Where it is made; in the temporary directory if not given.

    Raises:
        OSError: If it cannot be made.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    sweep(parent)
    with own(parent) as files:
        yield files


@contextlib.contextmanager
def own(parent: Path) -> Iterator[Path]:
    """Make a directory that is gone at the end, and leave those of killed processes to the caller.

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
    """Have what libraries put into the temporary directory until the block ends go in such a directory."""
    with directory() as owned:
        before, tempfile.tempdir = tempfile.tempdir, str(owned)
        try:
            yield
        finally:
            tempfile.tempdir = before


def sweep_all() -> None:
    """Remove what killed processes have left in the temporary directory and in the cache."""
    with contextlib.suppress(OSError, NewsbertError):
        sweep(Path(tempfile.gettempdir()))
        for parent in environment.cache_dir().iterdir():
            sweep(parent)


def sweep(parent: Path) -> None:
    """Remove what killed processes have left in a directory."""
    for files in abandoned(parent):
        remove(files)


def abandoned(parent: Path) -> Iterator[Path]:
    """Return the directories in `parent` whose processes were killed; others wait until the next one is taken.

    Only those of this user are looked at, and links are not followed: others may write to the temporary directory, too.
    """
    for owned in sorted(parent.glob(f"{_PREFIX}*")):
        with contextlib.suppress(OSError):
            private_files.check_owner(owned)
            try:  # for writing: over NFS an exclusive lock needs that
                descriptor = os.open(owned / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                owned.rmdir()  # its process was killed at once; where it lives it makes another one
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield owned / _FILES
            finally:
                os.close(descriptor)


def remove(files: Path) -> None:
    """Remove a directory that `directory` or `abandoned` has returned."""
    shutil.rmtree(files, ignore_errors=True)
    if not files.exists():  # else the next process finds it by its lock again
        with contextlib.suppress(OSError):
            (files.parent / _LOCK).unlink(missing_ok=True)
            files.parent.rmdir()


def _make(parent: Path) -> tuple[Path, TextIO]:
    while True:
        owned = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as stack:
            lock = stack.enter_context((owned / _LOCK).open("x", encoding="utf-8"))
            with contextlib.suppress(OSError):  # a file system without locks: then nobody else gets one either
                fcntl.flock(lock, fcntl.LOCK_EX)
            (owned / _LOCK).stat()  # gone where another process has swept before the lock was there
            stack.pop_all()
            return owned, lock
