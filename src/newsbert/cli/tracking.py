"""`newsbert tracking`."""

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from newsbert.cli._framework import group
from newsbert.cli._options import Debug, Json, setting
from newsbert.cli._output import Output
from newsbert.cli._signals import stop_on_signals
from newsbert.core import config
from newsbert.core.settings import TrackingServerSettings
from newsbert.errors import UsageError

if TYPE_CHECKING:
    from newsbert.tracking.server.backup_file import BackupManifest
    from newsbert.tracking.server.state import ServerInfo, ServerState

UP_EXAMPLES = """
Examples:

    newsbert tracking up --detach

    newsbert tracking up --backend-store postgresql://mlflow@db/mlflow --artifacts s3://my-bucket/mlflow

    newsbert tracking up --host 0.0.0.0 --allowed-hosts mlflow.example.org
"""
DOWN_EXAMPLES = """
Examples:

    newsbert tracking down
"""
STATUS_EXAMPLES = """
Examples:

    newsbert tracking status

    newsbert tracking status --json
"""
BACKUP_EXAMPLES = """
Examples:

    newsbert tracking backup tracking-2026-11-25.tar

    newsbert tracking backup tracking.tar --backend-store postgresql://mlflow@db/mlflow --artifacts s3://my-bucket/mlflow
"""
RESTORE_EXAMPLES = """
Examples:

    newsbert tracking restore tracking-2026-11-25.tar --directory restored

    newsbert tracking restore tracking.tar --backend-store postgresql://mlflow@db/empty --artifacts s3://my-bucket/empty
"""
USER_EXAMPLES = """
Examples:

    newsbert tracking user alice

    newsbert tracking user admin
"""

GRANT_EXAMPLES = """
Examples:

    newsbert tracking grant bob --experiment news --model BertModel

    newsbert tracking grant bob --model BertModel --permission manage
"""
REVOKE_EXAMPLES = """
Examples:

    newsbert tracking revoke bob --experiment news --model BertModel
"""

app = group("Run an MLflow tracking server for a team.")

Directory = Annotated[str | None, setting(TrackingServerSettings, "directory", metavar="DIRECTORY")]
BackendStore = Annotated[str | None, setting(TrackingServerSettings, "backend_store", metavar="URL")]
Artifacts = Annotated[str | None, setting(TrackingServerSettings, "artifacts", metavar="WHERE")]


@app.command("up", epilog=UP_EXAMPLES)
def up(
    backend_store: BackendStore = None,
    artifacts: Artifacts = None,
    host: Annotated[str | None, setting(TrackingServerSettings, "host")] = None,
    port: Annotated[int | None, setting(TrackingServerSettings, "port")] = None,
    allowed_hosts: Annotated[str | None, setting(TrackingServerSettings, "allowed_hosts", metavar="NAMES")] = None,
    auth: Annotated[bool | None, setting(TrackingServerSettings, "auth", "--auth/--no-auth")] = None,
    default_permission: Annotated[str | None, setting(TrackingServerSettings, "default_permission")] = None,
    workers: Annotated[int | None, setting(TrackingServerSettings, "workers")] = None,
    directory: Directory = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when it answers; run in the background.")
    ] = False,
    prepared: Annotated[bool, typer.Option(hidden=True)] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run the server until Ctrl+C.

    It makes its database's tables, or brings them up to date, and sees that it can write its artifacts, which go
    through it: who logs needs no credentials of the bucket. It answers on loopback unless told otherwise, and then
    asks for a name and a password.
    """
    screen = Output(as_json)
    settings = config.resolve(
        TrackingServerSettings,
        backend_store=backend_store,
        artifacts=artifacts,
        host=host,
        port=port,
        allowed_hosts=allowed_hosts,
        auth=auth,
        default_permission=default_permission,
        workers=workers,
        directory=directory,
    )
    from newsbert.tracking.server import process

    stop = stop_on_signals()
    with process.planned(settings) as plan:
        password = None
        if not prepared:
            screen.log("preparing database and artifacts …")
            password = process.prepare(plan, screen.log)
        if detach:
            _render(screen, process.start_detached(plan), password, plan.home)
            return
        screen.log("starting …")
        process.serve(plan, stop, lambda noted: _render(screen, noted, password))
        screen.log("stopped")


@app.command("down", epilog=DOWN_EXAMPLES)
def down(directory: Directory = None, as_json: Json = False, debug: Debug = False) -> None:
    """Stop the server."""
    screen = Output(as_json)
    settings = config.resolve(TrackingServerSettings, directory=directory)
    from newsbert.tracking.server import process
    from newsbert.tracking.server.state import ServerState

    stopped = process.down(ServerState(settings.directory))
    if screen.as_json:
        screen.document({"stopped": stopped.url})
        return
    screen.result(f"stopped {stopped.url}")


@app.command("status", epilog=STATUS_EXAMPLES)
def status(directory: Directory = None, as_json: Json = False, debug: Debug = False) -> None:
    """Show whether the server answers and where it stores data.

    The exit code is 1 if it does not.
    """
    screen = Output(as_json)
    settings = config.resolve(TrackingServerSettings, directory=directory)
    from newsbert.tracking.server import process
    from newsbert.tracking.server.state import ServerState

    server_info = process.status(ServerState(settings.directory))
    if screen.as_json:
        screen.document(_build_document(server_info))
        return
    screen.table(
        ("what", "value"),
        [(name, _format_value(value)) for name, value in _build_document(server_info).items()],
        words=2,
    )


@app.command("backup", epilog=BACKUP_EXAMPLES)
def backup(
    file: Annotated[Path, typer.Argument(help="Where to; a tar that is made here.")],
    backend_store: BackendStore = None,
    artifacts: Artifacts = None,
    directory: Directory = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write database, accounts and artifacts into one file.

    The server may run meanwhile.
    """
    screen = Output(as_json)
    settings = config.resolve(
        TrackingServerSettings, backend_store=backend_store, artifacts=artifacts, directory=directory
    )
    from newsbert.tracking.server import backup, process

    state, store_config = process.places(settings)
    if state.read_previous_store() is None:
        if settings.backend_store is None:
            raise state.never_started()
        if settings.artifacts is None:
            raise UsageError("nothing says where the artifacts are", "give --artifacts, too")
    manifest = backup.make(store_config, file)
    _render_backup(screen, manifest, file, "holds")
    screen.next_command(f"newsbert tracking restore {shlex.quote(str(file))} --directory EMPTY")


@app.command("restore", epilog=RESTORE_EXAMPLES)
def restore(
    file: Annotated[Path, typer.Argument(help="A backup.")],
    backend_store: BackendStore = None,
    artifacts: Artifacts = None,
    directory: Directory = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Restore a backup into an empty database and artifact store."""
    screen = Output(as_json)
    settings = config.resolve(
        TrackingServerSettings, backend_store=backend_store, artifacts=artifacts, directory=directory
    )
    from newsbert.tracking.server import backup, process

    state, store_config = process.places(settings)
    manifest = backup.restore(state, store_config, file, screen.log)
    _render_backup(screen, manifest, file, "was restored:")
    screen.next_command(f"newsbert tracking up{state.option}")


@app.command("user", epilog=USER_EXAMPLES)
def user(
    name: Annotated[str, typer.Argument(help="Its name.")],
    admin: Annotated[bool, typer.Option("--admin", help="It may do everything, accounts included.")] = False,
    directory: Directory = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Create an account, or give one a new password.

    The password is printed once. An account may make experiments and models, and do everything with these. What it may
    do with those of others is --default-permission of newsbert tracking up, and newsbert tracking grant.
    """
    screen = Output(as_json)
    settings = config.resolve(TrackingServerSettings, directory=directory)
    from newsbert.tracking.server import accounts
    from newsbert.tracking.server.state import ServerState

    password, created = accounts.renew(ServerState(settings.directory), name, admin=admin)
    if screen.as_json:
        screen.document({"user": name, "password": password, "created": created})
        return
    if not created:
        screen.note(f"user {name} already existed: the previous password is revoked")
    screen.result(f"MLFLOW_TRACKING_USERNAME={name}")
    screen.result(f"MLFLOW_TRACKING_PASSWORD={password}")


Experiment = Annotated[str | None, typer.Option(metavar="NAME", help="An experiment; '*' for all.")]
Model = Annotated[str | None, typer.Option(metavar="NAME", help="A registered model; '*' for all.")]


@app.command("grant", epilog=GRANT_EXAMPLES)
def grant(
    name: Annotated[str, typer.Argument(help="The account.")],
    experiment: Experiment = None,
    model: Model = None,
    permission: Annotated[str, typer.Option(help="read, edit (log and register) or manage (delete too).")] = "edit",
    directory: Directory = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Give an account access to an experiment or a model.

    Whoever makes an experiment or a model may do everything with it, without a grant. It holds from the next request.
    """
    screen = Output(as_json)
    settings = config.resolve(TrackingServerSettings, directory=directory)
    from newsbert.tracking.server import accounts
    from newsbert.tracking.server.state import ServerState

    accounts.grant(ServerState(settings.directory), name, experiment=experiment, model=model, permission=permission)
    if screen.as_json:
        screen.document({"user": name, "experiment": experiment, "model": model, "permission": permission})
        return
    screen.result(f"{name} has the permission {permission} for {_format_resources(experiment, model)}")


@app.command("revoke", epilog=REVOKE_EXAMPLES)
def revoke(
    name: Annotated[str, typer.Argument(help="The account.")],
    experiment: Experiment = None,
    model: Model = None,
    directory: Directory = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Remove access that newsbert tracking grant gave."""
    screen = Output(as_json)
    settings = config.resolve(TrackingServerSettings, directory=directory)
    from newsbert.tracking.server import accounts
    from newsbert.tracking.server.state import ServerState

    accounts.revoke(ServerState(settings.directory), name, experiment=experiment, model=model)
    if screen.as_json:
        screen.document({"user": name, "experiment": experiment, "model": model})
        return
    screen.result(f"{name} has the default permission for {_format_resources(experiment, model)}")


def _format_resources(experiment: str | None, model: str | None) -> str:
    resources = {"experiment": experiment, "model": model}
    return " and ".join(f"{kind} {name}" for kind, name in resources.items() if name is not None)


def _render(screen: Output, noted: "ServerInfo", password: str | None, home: "ServerState | None" = None) -> None:
    """Print the addresses of the server; with `home`, it runs in the background."""
    if screen.as_json:
        screen.document(_build_document(noted) | ({"admin_password": password} if password else {}))
        return
    screen.result(f"MLflow {noted.mlflow} is ready on {noted.url}")
    screen.result(f"  database   {noted.database}")
    screen.result(f"  artifacts  {noted.artifacts}")
    if noted.auth:
        screen.result("  accounts   on")
        if password and (home is not None or screen.is_terminal):
            screen.result(f"  admin      {password}  (shown this once; newsbert tracking user admin makes a new one)")
        elif password:  # the output is a log, which would store the password
            screen.next_command("newsbert tracking user admin  gives the administrator a password")
        screen.next_command("newsbert tracking user NAME  makes an account for each user")
    screen.next_command(f"export MLFLOW_TRACKING_URI={noted.url}")
    if home is not None:
        screen.next_command(f"newsbert tracking down{home.option}")
    else:
        screen.log("Ctrl+C stops it")


def _render_backup(screen: Output, contents: "BackupManifest", file: Path, what: str) -> None:
    if screen.as_json:
        fields = {name: value for name, value in vars(contents).items() if name != "files"}
        screen.document({"file": str(file), **fields, "artifacts": len(contents.artifacts)})
        return
    summary = f"a {contents.database} database of MLflow {contents.mlflow} and {len(contents.artifacts)} artifacts"
    screen.result(f"{file} {what} {summary}")


def _build_document(noted: "ServerInfo") -> dict[str, object]:
    return {name: value for name, value in dataclasses.asdict(noted).items() if name != "started"}


def _format_value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
