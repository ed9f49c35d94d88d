"""The private directory of a server: all that it writes is in it."""

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from newsbert.core import temporary
from newsbert.errors import ServingError, UsageError

LOCK = "newsbert.lock"
_MAX_PATH = 86
"""The longest path that leaves room for the names of sockets, whose paths may have 107 bytes."""

_TMPFS_HINT = "give it a writable directory: docker run --tmpfs /tmp, or --run-dir DIRECTORY"


@contextlib.contextmanager
def make(given: str | None) -> Iterator[Path]:
    """Make a server's directory, for this user alone; it is gone at the end.

    Args:
        given: Where it is to be; a fresh temporary directory if nowhere in particular.

    Raises:
        UsageError: If it holds other things than a server left, is somebody else's, or its path is too long.
        ServingError: If a server runs there, or it cannot be written to.
    """
    if given is None:
        with contextlib.ExitStack() as stack:
            try:
                directory = stack.enter_context(temporary.directory())
            except OSError as error:
                raise ServingError(f"no temporary directory can be written to: {error}", _TMPFS_HINT) from error
            _check_length(directory)
            yield directory
        return
    directory = _claim(Path(given).absolute())
    _check_length(directory)
    with (directory / LOCK).open("a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ServingError(
                f"a server is running in {directory}", "newsbert serve stop, or give another --run-dir"
            ) from error
        try:
            _empty(directory)
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _claim(directory: Path) -> Path:
    """Make `directory`, or see that it is one that a server left behind."""
    try:
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700, parents=True)
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise UsageError(f"{directory} is no directory of this user's", "give another: --run-dir DIRECTORY")
        if any(directory.iterdir()) and not (directory / LOCK).is_file():
            raise UsageError(
                f"{directory} holds files that no server left there", "give an empty one: --run-dir DIRECTORY"
            )
        directory.chmod(0o700)
    except OSError as error:
        raise ServingError(f"{directory} cannot be made: {error}", _TMPFS_HINT) from error
    return directory


def _check_length(directory: Path) -> None:
    if len(os.fsencode(directory)) > _MAX_PATH:
        with contextlib.suppress(OSError):  # where somebody else's things are in it
            directory.rmdir()
        raise UsageError(
            f"the path of {directory} has more than {_MAX_PATH} bytes, too many for a socket in it",
            "give a shorter one: --run-dir /tmp/newsbert",
        )


def _empty(directory: Path) -> None:
    """Remove what a server that was killed has left there."""
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()
