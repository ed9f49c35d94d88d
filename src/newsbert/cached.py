"""Directories in the cache that are made once: each appears whole or not at all, whoever else makes it meanwhile."""

import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

from newsbert import config
from newsbert.errors import NewsbertError


def directory(kind: str, key: str, write: Callable[[Path], None]) -> Path:
    """Find a directory in the cache, or make it.

    Args:
        kind: What it is of.
        key: What tells it from others of its kind.
        write: Makes it under another name, beside those that there are.

    Raises:
        NewsbertError: If the cache directory cannot be written to.
    """
    found = config.cache_dir() / kind / key
    if found.is_dir():
        return found
    part = found.with_name(f".{key}.{platform.node()}.{os.getpid()}")
    try:
        found.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(found.parent)
        shutil.rmtree(part, ignore_errors=True)
        write(part)
        for file in part.rglob("*"):
            sync(file)
        try:
            part.rename(found)
        except OSError:
            if not found.is_dir():  # another process was as fast
                raise
    except OSError as error:
        raise NewsbertError(f"{found} cannot be used: {error}", "make room, or set NEWSBERT_CACHE_DIR") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return found


def sync(path: Path) -> None:
    """Have the disk hold what was written to a file, or which files a directory has."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_abandoned(parent: Path) -> None:
    """Remove what processes of this machine that were killed had begun: nobody else would."""
    for part in parent.glob(f".*.{platform.node()}.*"):
        try:
            os.kill(int(part.suffix[1:]), 0)
        except ProcessLookupError:
            shutil.rmtree(part, ignore_errors=True)
        except (OSError, ValueError):  # somebody else's, who lives; or nothing of ours
            continue
