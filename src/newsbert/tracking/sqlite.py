"""SQLite file of a tracking server on this machine: created completely or not at all, by training only.

MLflow creates the tables on first use, step by step and without a lock. If two first commands run at once, or one is
interrupted, MLflow can never open the database again, and retries for two minutes.
"""

import contextlib
import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from newsbert.core import locks, private_files, temporary, uris
from newsbert.core.installation import MissingExtraError
from newsbert.errors import NotFoundError, TrackingError


def path_of(uri: str) -> Path | None:
    """Return the file of a tracking URI such as `sqlite:///mlflow.db`, or `None` if it has none.

    Raises:
        MissingExtraError: If SQLAlchemy, which comes with MLflow, is not installed.
    """
    try:
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError
    except ImportError as error:
        raise MissingExtraError("mlflow", "train") from error
    try:
        url = make_url(uri)
    except (ArgumentError, ValueError):
        return None  # opening it will report the problem
    if url.get_backend_name() != "sqlite" or url.database in {None, "", ":memory:"} or "uri" in url.query:
        return None
    return Path(str(url.database))


@contextlib.contextmanager
def ready(file: Path, make: Callable[[Path], None] | None) -> Iterator[None]:
    """Check the database, creating it if allowed, before MLflow opens it in the block.

    Args:
        file: The database.
        make: Creates the tables in a new file; `None` for readers, which must not create a database.

    Raises:
        NotFoundError: If there is no database, and `make` is `None`.
        TrackingError: If it cannot be created, opened or, with `make`, written to.
    """
    try:
        with _lock(file, create=make is not None):
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
    """Open an existing database.

    A read-only connection cannot roll back the unfinished transaction of a killed process, so it is used only for
    files that are not writable.

    Raises:
        sqlite3.Error: If it cannot be opened.
    """
    mode = "rw" if os.access(file, os.W_OK) else "ro"
    return sqlite3.connect(f"{uris.as_uri(file)}?mode={mode}", uri=True, timeout=timeout_s)


def _is_missing(file: Path) -> bool:
    """Return whether the file is missing, or is one that SQLite has opened and nothing was written to."""
    try:
        return file.stat().st_size == 0
    except FileNotFoundError:
        return True


@contextlib.contextmanager
def _lock(file: Path, *, create: bool) -> Iterator[None]:
    """Wait while another process creates the database; with `create`, hold a lock file, which is deleted afterwards.

    The database itself is not locked: closing any handle of it would drop SQLite's own locks.
    """
    lock = file.with_name(f".{file.name}.lock")
    if create:
        file.parent.mkdir(parents=True, exist_ok=True)
    try:
        stream = private_files.open_lock(lock) if create else lock.open(encoding="utf-8")
    except FileNotFoundError:
        if create:
            raise
        yield  # no process is creating it
        return
    with stream:
        locks.lock(stream)
        try:
            yield
        finally:
            # Others may then take a new lock file: a process that waits for this one must see a finished database.
            if create and not _is_missing(file):
                lock.unlink(missing_ok=True)
