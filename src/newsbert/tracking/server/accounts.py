"""Accounts of a tracking server with password authentication."""

import contextlib
import secrets
import shlex
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from newsbert.core import environment, temporary
from newsbert.core.installation import MissingExtraError
from newsbert.errors import NotFoundError, TrackingError, UsageError
from newsbert.tracking.server import database
from newsbert.tracking.server.state import ServerState

if TYPE_CHECKING:
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

ADMIN = "admin"
PERMISSIONS = {"none": "NO_PERMISSIONS", "read": "READ", "edit": "EDIT", "manage": "MANAGE"}
"""MLflow's names of permissions; every permission includes those before it."""

_PASSWORD_BYTES = 18
_MAX_NAME_LENGTH = 255
_EXPERIMENT, _MODEL = "experiment", "registered_model"


def configure(home: ServerState, url: str, default_permission: str) -> None:
    """Write MLflow's authentication settings; accounts are stored in the server's own database.

    Every account may create experiments and models, and has all permissions on them.

    Args:
        home: The server's directory.
        url: Its database's URL.
        default_permission: The permission on resources of others: one of `PERMISSIONS`.
    """
    lines = (
        "[mlflow]",
        f"default_permission = {PERMISSIONS[default_permission]}",
        f"database_uri = {url.replace('%', '%%')}",
        f"admin_username = {ADMIN}",
        "authorization_function = newsbert.tracking.server.authentication:authenticate",
    )
    home.write(home.auth_config, "\n".join([*lines, ""]))


def make_admin(home: ServerState, url: str) -> str | None:
    """Create the first account if there is none.

    Returns:
        Its password, which is not stored; `None` if there was an account.
    """
    with database.errors(url):
        store = _open_store(home, url)
        return None if store.has_user(ADMIN) else _create_account(store, ADMIN, admin=True)


def renew(home: ServerState, name: str, *, admin: bool) -> tuple[str, bool]:
    """Create an account, or set a new password for an existing one.

    Returns:
        The password, which is not stored, and whether the account is new.

    Raises:
        UsageError: If the name is invalid.
        TrackingError: If there is no server with accounts, or its database cannot be used.
    """
    if not name.strip() or ":" in name or len(name) > _MAX_NAME_LENGTH or not name.isprintable():
        raise UsageError(f"{name!r} cannot be the name of an account", "use letters, digits, - and _")
    with _open_accounts(home) as (store, _):
        if not store.has_user(name):
            return _create_account(store, name, admin=admin), True
        password = secrets.token_urlsafe(_PASSWORD_BYTES)
        store.update_user(name, password=password, is_admin=True if admin else None)
        return password, False


def grant(home: ServerState, name: str, *, experiment: str | None, model: str | None, permission: str) -> None:
    """Grant an account a permission on an experiment, a registered model or both, beyond its default.

    Args:
        home: The server's directory.
        name: The account.
        experiment: An experiment's name, `*` for all.
        model: A registered model's name, `*` for all.
        permission: One of `PERMISSIONS` except `none`; it replaces an earlier grant.

    Raises:
        UsageError: If there is no such permission, or neither experiment nor model.
        NotFoundError: If there is no such account, experiment or model.
        TrackingError: If there is no server with accounts, or its database cannot be used.
    """
    grantable = [word for word in PERMISSIONS if word != "none"]  # a grant adds to the default permission
    if permission not in grantable:
        raise UsageError(f"{permission!r} cannot be granted", f"give one of {', '.join(grantable)}")
    with _open_accounts(home) as (store, url):
        for kind, key in _resolve_resources(store, url, name, experiment, model):
            store.grant_user_permission(name, kind, key, PERMISSIONS[permission])


def revoke(home: ServerState, name: str, *, experiment: str | None, model: str | None) -> None:
    """Revoke a grant: the account has the default permission again.

    Args:
        home: The server's directory.
        name: The account.
        experiment: An experiment's name, `*` for all.
        model: A registered model's name, `*` for all.

    Raises:
        UsageError: If there is neither experiment nor model.
        NotFoundError: If there is no such account, experiment, model or grant.
        TrackingError: If there is no server with accounts, or its database cannot be used.
    """
    from mlflow.exceptions import MlflowException

    with _open_accounts(home) as (store, url):
        for kind, key in _resolve_resources(store, url, name, experiment, model):
            try:
                store.revoke_user_resource_permission(name, kind, key)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                resource = experiment if kind == _EXPERIMENT else model
                raise NotFoundError(
                    f"{name} has no grant for {kind.replace('_', ' ')} {resource!r}", "newsbert tracking grant --help"
                ) from error


def _resolve_resources(
    store: "SqlAlchemyStore", url: str, name: str, experiment: str | None, model: str | None
) -> list[tuple[str, str]]:
    """Return MLflow's kinds and keys of the resources of a grant; the key of an experiment is its id.

    Raises:
        UsageError: If there is neither experiment nor model.
        NotFoundError: If there is no such account, experiment or model.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Tracking

    if experiment is None and model is None:
        raise UsageError("a grant needs an experiment, a model or both", "give --experiment NAME or --model NAME")
    if not store.has_user(name):
        raise NotFoundError(f"there is no account {name!r}", f"newsbert tracking user {shlex.quote(name)}")
    resources: list[tuple[str, str]] = []
    if experiment is not None:
        key = "*"
        if experiment != "*":
            with temporary.directory() as unused:  # MLflow creates a directory for artifacts
                entity = Tracking(url, str(unused)).get_experiment_by_name(experiment)
            if entity is None:
                raise NotFoundError(f"there is no experiment {experiment!r}", "its first run makes it: newsbert train")
            key = entity.experiment_id
        resources.append((_EXPERIMENT, key))
    if model is not None:
        if model != "*":
            try:
                Registry(url).get_registered_model(model)
            except MlflowException as error:
                raise NotFoundError(f"there is no registered model {model!r}", "newsbert register makes it") from error
        resources.append((_MODEL, model))
    return resources


@contextlib.contextmanager
def _open_accounts(home: ServerState) -> "Iterator[tuple[SqlAlchemyStore, str]]":
    """Yield a server's account store and the URL of its database.

    Raises:
        TrackingError: If there is no server with accounts, or its database cannot be used.
    """
    url = home.read_store().database
    if not home.auth_config.exists():
        raise TrackingError(
            f"the tracking server in {home.path} has no accounts", f"newsbert tracking up --auth{home.option}"
        )
    with database.errors(url):
        yield _open_store(home, url), url


def _create_account(store: "SqlAlchemyStore", name: str, *, admin: bool) -> str:
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    store.create_user(name, password, is_admin=admin)
    return password


def _open_store(home: ServerState, url: str) -> "SqlAlchemyStore":
    environment.configure_mlflow_auth(home.auth_config, home.secret_key())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow's internal warnings
            from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore
    except ImportError as error:
        raise MissingExtraError("flask_wtf", "tracking") from error
    store = SqlAlchemyStore()
    store.init_db(url)
    return store
