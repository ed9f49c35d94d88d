"""`newsbert tracking up`, `down` and `status`."""

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from newsbert.cli._options import Debug, Json, setting
from newsbert.cli._output import Output
from newsbert.cli.tracking._options import Artifacts, BackendStore, Directory, get_state
from newsbert.core import config
from newsbert.core.settings import TrackingServerSettings
from newsbert.core.signals import stop_on_signals

if TYPE_CHECKING:
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
    through it: who logs needs no credentials of the bucket. By default it answers on loopback. On other
    addresses it requires a name and a password.
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


def down(directory: Directory = None, as_json: Json = False, debug: Debug = False) -> None:
    """Stop the server."""
    screen = Output(as_json)
    from newsbert.tracking.server import process

    stopped = process.down(get_state(directory))
    if screen.as_json:
        screen.document({"stopped": stopped.url})
        return
    screen.result(f"stopped {stopped.url}")


def status(directory: Directory = None, as_json: Json = False, debug: Debug = False) -> None:
    """Show whether the server answers and where it stores data.

    The exit code is 1 if it does not.
    """
    screen = Output(as_json)
    from newsbert.tracking.server import process

    document = _build_document(process.status(get_state(directory)))
    if screen.as_json:
        screen.document(document)
        return
    screen.table(("what", "value"), [(name, _format_value(value)) for name, value in document.items()], words=2)


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


def _build_document(noted: "ServerInfo") -> dict[str, object]:
    return {name: value for name, value in dataclasses.asdict(noted).items() if name != "started"}


def _format_value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
