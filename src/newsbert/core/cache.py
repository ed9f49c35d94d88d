"""Directories in the cache: made once and atomically, even if several processes make the same one, or temporary."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from newsbert.core import environment, files, temporary
from newsbert.errors import NewsbertError


def get_or_create_dir(kind: str, key: str, write: Callable[[Path], None]) -> Path:
    """Return a directory in the cache, and make it if it does not exist.

    Args:
        kind: Kind of its content.
        key: Its name, unique within its kind.
        write: Makes it at a temporary path.

    Raises:
        NewsbertError: If the cache directory cannot be written to.
    """
    directory = environment.cache_dir() / kind / key
    if directory.is_dir():
        return directory
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with temporary.directory(directory.parent) as work:
            _make(work / key, directory, write)
    except OSError as error:
        raise _unusable(directory, error) from error
    return directory


@contextlib.contextmanager
def make_temporary_dir(kind: str) -> Iterator[Path]:
    """Make a directory in the cache that is removed at the end: it has room for more than memory.

    Args:
        kind: Kind of its content.

    Raises:
        NewsbertError: If it cannot be written to.
    """
    parent = environment.cache_dir() / kind
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with temporary.directory(parent) as directory:
            yield directory
    except OSError as error:
        raise _unusable(parent, error) from error


def _unusable(directory: Path, error: OSError) -> NewsbertError:
    return NewsbertError(f"{directory} cannot be used: {error}", "make room, or set NEWSBERT_CACHE_DIR")


def _make(part: Path, directory: Path, write: Callable[[Path], None]) -> None:
    write(part)
    for file in (*part.rglob("*"), part):
        files.sync(file)
    try:
        part.rename(directory)
    except OSError:
        if not directory.is_dir():  # otherwise another process has made it meanwhile
            raise
