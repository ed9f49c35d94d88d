"""The SQLite file of a tracking server on this machine: made whole or not at all, by training only.

MLflow makes the tables on first use, step by step and without a lock: two first commands at once, or one that is cut
short, leave a database that it can never open again. And what it cannot open it tries again for two minutes.
"""

import contextlib
import errno
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from newsbert.core import private_files, temporary, uris
from newsbert.core.installation import MissingExtraError
from newsbert.errors import NotFoundError, TrackingError


def path_of(uri: str) -> Path | None:
    """The file of a tracking URI such as `sqlite:///mlflow.db`; `None` if it has none.

    Raises:
        MissingExtraError: If MLflow, which knows such URIs, is not installed.
    """
    try:
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError
    except ImportError as error:
        raise MissingExtraError("mlflow", "train") from error
    try:
        url = make_url(uri)
    except (ArgumentError, ValueError):
        return None  # whoever opens it will say what is wrong
    if url.get_backend_name() != "sqlite" or url.database in {None, "", ":memory:"} or "uri" in url.query:
        return None
    return Path(str(url.database))


@contextlib.contextmanager
def ready(file: Path, make: Callable[[Path], None] | None) -> Iterator[None]:
    """Hold the database ready for MLflow to open it in the block.

    Args:
        file: The database.
        make: Makes the tables in a new file; `None` for who reads only, and so must not make a database.

    Raises:
        NotFoundError: If there is no database, and it is not to be made.
        TrackingError: If it cannot be made, opened or, by who makes it, written to.
    """
    try:
        with _locked(file, create=make is not None):
            if make is not None and _is_missing(file):
                with temporary.directory(file.parent) as directory:
                    partial = directory / file.name
                    make(partial)
                    partial.replace(file)
            if _is_missing(file):
                raise NotFoundError(
                    f"there is no tracking database {str(file.absolute())!r}",
                    "name the server that has the model: export MLFLOW_TRACKING_URI=http://HOST:5000; "
                    "or make a model here: newsbert train",
                )
            if make is not None and not os.access(file, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            with contextlib.closing(opened(file)) as connection:
                connection.execute("PRAGMA schema_version").fetchone()
            yield
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise TrackingError(
            f"the tracking database {str(file.absolute())!r} cannot be used: {reason}",
            "check the path and its rights, or set MLFLOW_TRACKING_URI",
        ) from error


def opened(file: Path, timeout_s: float = 5.0) -> sqlite3.Connection:
    """Open a database that there is.

    Who opens it to read only cannot roll back what a process that was killed has left half done: so that is only for
    files that cannot be written to.

    Raises:
        sqlite3.Error: If it cannot be opened.
    """
    mode = "rw" if os.access(file, os.W_OK) else "ro"
    return sqlite3.connect(f"{uris.as_uri(file)}?mode={mode}", uri=True, timeout=timeout_s)


def _is_missing(file: Path) -> bool:
    """Whether there is no file, or one that SQLite has opened and nobody has written."""
    try:
        return file.stat().st_size == 0
    except FileNotFoundError:
        return True


@contextlib.contextmanager
def _locked(file: Path, *, create: bool) -> Iterator[None]:
    """Wait for whoever is making the database; who may make it holds a lock file, which is gone afterwards.

    A lock on the database itself would be lost: closing any handle of it drops SQLite's own.
    """
    lock = file.with_name(f".{file.name}.lock")
    if create:
        file.parent.mkdir(parents=True, exist_ok=True)
    try:
        stream = private_files.open_lock(lock) if create else lock.open(encoding="utf-8")
    except FileNotFoundError:
        if create:
            raise
        yield  # nobody is making it
        return
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        try:
            yield
        finally:
            # Who still waits for this lock, while others take a new one, must find the database made.
            if create and not _is_missing(file):
                lock.unlink(missing_ok=True)
