"""Directories in the cache that are made once and atomically, even if several processes make the same one."""

from collections.abc import Callable
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
        raise NewsbertError(f"{directory} cannot be used: {error}", "make room, or set NEWSBERT_CACHE_DIR") from error
    return directory


def _make(part: Path, directory: Path, write: Callable[[Path], None]) -> None:
    write(part)
    for file in (*part.rglob("*"), part):
        files.sync(file)
    try:
        part.rename(directory)
    except OSError:
        if not directory.is_dir():  # otherwise another process has made it meanwhile
            raise
