"""Dumps of a tracking server's database."""

import contextlib
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from newsbert.core import temporary, uris
from newsbert.core.environment import child_environment
from newsbert.errors import TrackingError
from newsbert.tracking import sqlite
from newsbert.tracking.server import database

if TYPE_CHECKING:
    from sqlalchemy.engine import URL


def dump(url: str, file: Path) -> None:
    """Dump the database at `url` into a file.

    Raises:
        NewsbertError: If it fails.
    """
    source = sqlite.path_of(url)
    if source is None:
        _run_postgres(
            "pg_dump", database.parse(url), "--format=custom", "--no-owner", "--no-privileges", f"--file={file}"
        )
        return
    try:
        with (
            contextlib.closing(sqlite.opened(source, timeout_s=30)) as original,
            contextlib.closing(sqlite3.connect(file)) as copy,
        ):
            original.backup(copy)
    except sqlite3.Error as error:
        raise TrackingError(f"the database {database.shown(url)} cannot be read: {error}", "check the file") from error


def load(url: str, file: Path) -> None:
    """Load a dump into the database at `url`.

    Raises:
        NewsbertError: If it fails.
    """
    target = sqlite.path_of(url)
    if target is None:
        options = ("--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges")
        _run_postgres("pg_restore", database.parse(url), *options, str(file))
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.directory(target.parent) as directory:
            partial = directory / target.name
            shutil.copyfile(file, partial)
            partial.replace(target)
    except OSError as error:
        raise TrackingError(f"{target} cannot be written: {error.strerror}", "make room, or give another") from error


def _run_postgres(program: str, url: "URL", *arguments: str) -> None:
    """Run a PostgreSQL program on a database, without the password on its command line.

    Raises:
        TrackingError: If it is missing or fails.
    """
    executable = find_program(program)
    address = url._replace(drivername="postgresql", password=None).render_as_string()
    variables = {
        "PGCONNECT_TIMEOUT": str(database.CONNECT_TIMEOUT_S),
        **({"PGPASSWORD": url.password} if url.password else {}),
    }
    run(executable, "--no-password", f"--dbname={address}", *arguments, secret=url.password, **variables)


def find_program(name: str) -> str:
    """Return the path of a PostgreSQL program.

    Raises:
        TrackingError: If it is missing.
    """
    path = shutil.which(name)
    if path is None:
        raise TrackingError(f"{name} is not installed", "apt install postgresql-client, of the server's version")
    return path


def run(*command: str, secret: str | None = None, **environment: str) -> None:
    """Run a program.

    Raises:
        TrackingError: If it fails; the secret is masked.
    """
    completed = subprocess.run(
        command, env=child_environment(**environment), capture_output=True, text=True, check=False,
        encoding="utf-8", errors="replace",
    )  # fmt: skip
    if completed.returncode != 0:
        reason = next(iter(completed.stderr.strip().splitlines()), f"exit code {completed.returncode}")
        message = uris.mask_credentials(reason.replace(secret or chr(0), "***"))
        raise TrackingError(f"{Path(command[0]).name}: {message}", "check the database, and the version of both")
