"""The private directory of a server, for all files that it writes."""

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from newsbert.core import locks, temporary
from newsbert.errors import ServingError, UsageError

LOCK = "newsbert.lock"
_MAX_PATH_BYTES = 86
"""Maximum length of the directory's path in bytes: the path of a socket in it may have 107."""

_TMPFS_HINT = "give it a writable directory: docker run --tmpfs /tmp, or --run-dir DIRECTORY"


@contextlib.contextmanager
def make(path: str | None) -> Iterator[Path]:
    """Create a server's directory, private to this user, and remove it after the block.

    Args:
        path: Path of the directory; `None` for a new temporary one.

    Raises:
        UsageError: If it has files that no server left there, belongs to another user, or has too long a path.
        ServingError: If a server runs there, or it cannot be written to.
    """
    if path is None:
        with contextlib.ExitStack() as stack:
            try:
                directory = stack.enter_context(temporary.directory())
            except OSError as error:
                raise ServingError(f"no temporary directory can be written to: {error}", _TMPFS_HINT) from error
            _check_length(directory)
            yield directory
        return
    directory = _claim(Path(path).absolute())
    _check_length(directory)
    with (directory / LOCK).open("a", encoding="utf-8") as stream:
        locks.lock(
            stream,
            ServingError(f"a server is running in {directory}", "newsbert serve stop, or give another --run-dir"),
        )
        try:
            _remove_leftovers(directory)
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _claim(directory: Path) -> Path:
    """Create `directory`, or check that it is one that a server left behind."""
    try:
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700, parents=True)
        status = directory.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
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
    if len(os.fsencode(directory)) > _MAX_PATH_BYTES:
        with contextlib.suppress(OSError):  # it may hold files of others
            directory.rmdir()
        raise UsageError(
            f"the path of {directory} has more than {_MAX_PATH_BYTES} bytes, too many for a socket in it",
            "give a shorter one: --run-dir /tmp/newsbert",
        )


def _remove_leftovers(directory: Path) -> None:
    """Remove the files that a killed server has left there."""
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()
