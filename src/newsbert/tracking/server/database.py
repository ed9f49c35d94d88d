"""Database of a tracking server: connected, created, migrated and checked before the server starts."""

import contextlib
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from newsbert.core import uris
from newsbert.core.installation import MissingExtraError
from newsbert.errors import TrackingError, UsageError, first_line
from newsbert.tracking import sqlite

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Engine

CONNECT_TIMEOUT_S = 5
_REFUSING_TRIGGER = re.compile(
    r"CREATE TRIGGER \w+\s+BEFORE (UPDATE|DELETE|INSERT) ON \w+\s+FOR EACH ROW\s+(WHEN [\w\s.!=]+)?"
    r"BEGIN\s+SELECT RAISE\(ABORT, '[^']*'\);\s+END"
)
"""Kind of trigger that MLflow creates, which can only reject a change."""

_HINTS = {
    "authentication failed": "check the user and the password in MLFLOW_BACKEND_STORE_URI or --backend-store",
    "no password supplied": "check the user and the password in MLFLOW_BACKEND_STORE_URI or --backend-store",
    'role ".*" does not exist': "check the user in it, or make it: createuser --pwprompt NAME",
    'database ".*" does not exist': "check its name, or make it: createdb --owner USER NAME",
    "permission denied": "let the user own the database: ALTER DATABASE name OWNER TO user",
    "Connection refused|could not translate|timeout|timed out|No route": "is it running there? pg_isready --host HOST",
}


def parse(url: str) -> "URL":
    """Parse a database's URL.

    Raises:
        UsageError: If it is invalid.
        MissingExtraError: If SQLAlchemy, which comes with MLflow, is not installed.
    """
    try:
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError
    except ImportError as error:
        raise MissingExtraError("mlflow", "train") from error
    uris.check_unambiguous(url, "the backend store (MLFLOW_BACKEND_STORE_URI)")
    hint = "give postgresql://USER:PASSWORD@HOST/DATABASE or sqlite:///FILE"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:  # without the value, which may hold a password
        raise UsageError("the backend store is no URL of a database", hint) from error
    if parsed.get_backend_name() not in {"postgresql", "sqlite"}:
        raise UsageError(f"the backend store is in {parsed.get_backend_name()}, with which this was not tried", hint)
    if parsed.get_backend_name() == "sqlite" and sqlite.path_of(url) is None:
        raise UsageError("the backend store is an SQLite database without a file", hint)
    return parsed


def shown(url: str) -> str:
    """Return a database's URL with its credentials masked."""
    return uris.mask_credentials(url)


def prepare(url: str, on_log: Callable[[str], None]) -> None:
    """Connect to a database, create MLflow's tables if there are none, and migrate older ones.

    An SQLite file is copied before its tables are changed; PostgreSQL changes all of them or none.

    Args:
        url: Its URL.
        on_log: Called with messages on progress.

    Raises:
        TrackingError: If it cannot be reached or used, or belongs to a newer MLflow.
    """
    file = sqlite.path_of(url)
    if file is None:
        with errors(url), _open_engine(parse(url)) as engine:
            _migrate(engine, on_log)
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrackingError(
            f"{file.parent} cannot be made: {error.strerror}", "give another --backend-store"
        ) from error

    def make(partial: Path) -> None:
        with errors(url), _open_engine(parse(url).set(database=str(partial))) as engine:
            _migrate(engine, on_log)

    with sqlite.ready(file, make), errors(url), _open_engine(parse(url)) as engine:
        _migrate(engine, on_log, file)


def revision(url: str) -> str:
    """Return the revision of a database's tables.

    Raises:
        TrackingError: If it cannot be reached, or holds none of MLflow's.
    """
    from mlflow.store.db import utils

    with errors(url), _open_engine(parse(url)) as engine:
        version = utils._get_schema_version(engine)
    if version is None:
        raise TrackingError(f"the database {shown(url)} holds no tables of MLflow's", "newsbert tracking up makes them")
    return str(version)


def check_file(file: Path, on_log: Callable[[str], None]) -> None:
    """Check that an SQLite file from elsewhere holds MLflow's tables and nothing that runs by itself.

    Tables of an older MLflow are migrated in the file.

    Raises:
        TrackingError: If it does not.
    """
    try:
        with contextlib.closing(sqlite3.connect(f"{uris.as_uri(file)}?mode=ro&immutable=1", uri=True)) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            entries = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise TrackingError(f"the database cannot be read: {first_line(error)}", "take another backup") from error
    if state != "ok":
        raise TrackingError(f"the database is damaged: {first_line(Exception(state))}", "take another backup")
    for kind, name, sql in entries:
        plain = kind in {"table", "index"} and not re.match(r"\s*CREATE\s+VIRTUAL\b", sql or "", re.IGNORECASE)
        if not plain and not (kind == "trigger" and _REFUSING_TRIGGER.fullmatch(sql)):
            raise TrackingError(f"the database has the {kind} {name!r}, which is not of MLflow's", "drop it")
    if "experiments" not in {name for _, name, _ in entries}:
        raise TrackingError("the database holds no tables of MLflow's", "take another backup")
    url = uris.sqlite_uri(file)
    with errors(url), _open_engine(parse(url)) as engine:
        _migrate(engine, on_log)


def is_empty(url: str) -> bool:
    """Return whether a database has no tables.

    Raises:
        TrackingError: If it cannot be reached.
    """
    import sqlalchemy

    file = sqlite.path_of(url)
    if file is not None and not file.exists():
        return True
    with errors(url), _open_engine(parse(url)) as engine:
        return not sqlalchemy.inspect(engine).get_table_names()


def _migrate(engine: "Engine", on_log: Callable[[str], None], file: Path | None = None) -> None:
    import sqlalchemy
    from alembic.script import ScriptDirectory
    from mlflow.store.db import utils

    tables = sqlalchemy.inspect(engine).get_table_names()
    if "experiments" not in tables:
        if tables and not all(name.startswith("alembic_") for name in tables):
            on_log(f"the database holds {len(tables)} tables of somebody else's; MLflow's are put beside them")
        utils._initialize_tables(engine)
    script = ScriptDirectory.from_config(utils._get_alembic_config(""))
    current, latest = utils._get_schema_version(engine), script.get_current_head()
    if current != latest:
        if current not in {known.revision for known in script.walk_revisions()}:
            raise TrackingError(
                f"the database's tables are of a newer MLflow (revision {current})", "pip install --upgrade mlflow"
            )
        if file is not None:
            shutil.copy2(file, file.with_name(f"{file.name}.{current}"))
            on_log(f"a copy of the database is {file.name}.{current}")
        utils._upgrade_db(engine)
        on_log(f"the database's tables were brought from revision {current} to {latest}")
    utils._verify_schema(engine)


@contextlib.contextmanager
def _open_engine(url: "URL") -> "Iterator[Engine]":
    import sqlalchemy

    options = {"connect_timeout": CONNECT_TIMEOUT_S} if url.get_backend_name() == "postgresql" else {}
    engine = sqlalchemy.create_engine(url, connect_args=options)
    try:
        yield engine
    finally:
        engine.dispose()


@contextlib.contextmanager
def errors(url: str) -> Iterator[None]:
    """Translate a database's errors, without its password.

    Raises:
        TrackingError: For these errors, with a hint.
        MissingExtraError: If its driver is not installed.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "tracking") from error
    except (SQLAlchemyError, MlflowException) as error:
        reason = uris.mask_credentials(first_line(error).replace(parse(url).password or "\0", "***"))
        hint = next((hint for sign, hint in _HINTS.items() if re.search(sign, str(error))), "check --backend-store")
        raise TrackingError(f"the database {shown(url)} cannot be used: {reason}", hint) from error
