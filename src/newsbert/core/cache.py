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
    with report_errors(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        with temporary.directory(directory.parent) as work:
            _make(work / key, directory, write)
    return directory


@contextlib.contextmanager
def make_temporary_dir(kind: str) -> Iterator[Path]:
    """Make a directory in the cache that is removed at the end: it has room for more than memory.

    Args:
        kind: Kind of its content.

    Raises:
        NewsbertError: If it cannot be made.
    """
    parent = environment.cache_dir() / kind
    with contextlib.ExitStack() as stack:
        with report_errors(parent):
            parent.mkdir(parents=True, exist_ok=True)
            directory = stack.enter_context(temporary.directory(parent))
        yield directory


@contextlib.contextmanager
def report_errors(directory: Path) -> Iterator[None]:
    """Raise what fails while a directory of the cache is written to as an error with a hint.

    Raises:
        NewsbertError: If the cache directory cannot be written to.
    """
    try:
        yield
    except OSError as error:
        raise NewsbertError(f"{directory} cannot be used: {error}", "make room, or set NEWSBERT_CACHE_DIR") from error


def _make(part: Path, directory: Path, write: Callable[[Path], None]) -> None:
    write(part)
    for file in (*part.rglob("*"), part):
        files.sync(file)
    try:
        part.rename(directory)
    except OSError:
        if not directory.is_dir():  # otherwise another process has made it meanwhile
            raise
