"""The accounts of a tracking server that asks for a name and a password."""

import secrets
import warnings
from typing import TYPE_CHECKING

from newsbert import config
from newsbert.errors import MissingExtraError, TrackingError, UsageError
from newsbert.tracking_server import database
from newsbert.tracking_server.home import Home

if TYPE_CHECKING:
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

ADMIN = "admin"
_PASSWORD_BYTES = 18
_LONGEST_NAME = 255


def configure(home: Home, url: str) -> None:
    """Write MLflow's settings of accounts, which are kept in the server's own database.

    Whoever has an account may log and register, and delete what is his own.
    """
    lines = (
        "[mlflow]",
        "default_permission = EDIT",
        f"database_uri = {url.replace('%', '%%')}",
        f"admin_username = {ADMIN}",
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth",
    )
    home.write(home.auth_config, "\n".join([*lines, ""]))


def make_admin(home: Home, url: str) -> str | None:
    """Make the first account where there is none.

    Returns:
        Its password, which is kept nowhere; nothing if there was an account.
    """
    with database.errors(url):
        store = _store(home, url)
        return None if store.has_user(ADMIN) else _make(store, ADMIN, admin=True)


def renew(home: Home, name: str, *, admin: bool) -> tuple[str, bool]:
    """Make an account, or give the one that there is a new password.

    Returns:
        The password, which is kept nowhere, and whether the account is new.

    Raises:
        UsageError: If there cannot be an account of that name.
        TrackingError: If there is no server with accounts, or its database cannot be used.
    """
    if not name.strip() or ":" in name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise UsageError(f"{name!r} cannot be the name of an account", "use letters, digits, - and _")
    url = home.kept().database
    if not home.auth_config.exists():
        raise TrackingError(
            f"the tracking server in {home.path} has no accounts", f"newsbert tracking up --auth{home.option}"
        )
    with database.errors(url):
        store = _store(home, url)
        if not store.has_user(name):
            return _make(store, name, admin=admin), True
        password = secrets.token_urlsafe(_PASSWORD_BYTES)
        store.update_user(name, password=password, is_admin=True if admin else None)
        return password, False


def _make(store: "SqlAlchemyStore", name: str, *, admin: bool) -> str:
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    store.create_user(name, password, is_admin=admin)
    return password


def _store(home: Home, url: str) -> "SqlAlchemyStore":
    config.point_mlflow_at_accounts(home.auth_config, home.secret_key())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow's, of its own workings
            from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore
    except ImportError as error:
        raise MissingExtraError("flask_wtf", "tracking") from error
    store = SqlAlchemyStore()
    store.init_db(url)
    return store
