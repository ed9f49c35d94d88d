"""Directories in the cache that are made once: each appears whole or not at all, whoever else makes it meanwhile."""

import os
from collections.abc import Callable
from pathlib import Path

from newsbert.core import environment, temporary
from newsbert.errors import NewsbertError


def get_or_create_dir(kind: str, key: str, write: Callable[[Path], None]) -> Path:
    """Find a directory in the cache, or make it.

    Args:
        kind: What it is of.
        key: What tells it from others of its kind.
        write: Makes it under another name.

    Raises:
        NewsbertError: If the cache directory cannot be written to.
    """
    found = environment.cache_dir() / kind / key
    if found.is_dir():
        return found
    try:
        found.parent.mkdir(parents=True, exist_ok=True)
        with temporary.directory(found.parent) as work:
            _make(work / key, found, write)
    except OSError as error:
        raise NewsbertError(f"{found} cannot be used: {error}", "make room, or set NEWSBERT_CACHE_DIR") from error
    return found


def _make(part: Path, found: Path, write: Callable[[Path], None]) -> None:
    write(part)
    for file in (*part.rglob("*"), part):
        sync(file)
    try:
        part.rename(found)
    except OSError:
        if not found.is_dir():  # another process was as fast
            raise


def sync(path: Path) -> None:
    """Have the disk hold what was written to a file, or which files a directory has."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
