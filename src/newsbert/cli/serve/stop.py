"""`newsbert serve stop`."""

from typing import TYPE_CHECKING, Annotated

import typer

from newsbert.cli._options import Debug, Json
from newsbert.cli._output import Output
from newsbert.errors import UsageError

if TYPE_CHECKING:
    from newsbert.deployment.local_servers import DetachedServer


EXAMPLES = """
Examples:

    newsbert serve stop

    newsbert serve stop --port 8080

    newsbert serve stop --all
"""


def stop(
    port: Annotated[
        int | None, typer.Option(help="The server on this port.", show_default="the only one that runs")
    ] = None,
    stop_all: Annotated[bool, typer.Option("--all", help="Stop all of them.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Stop one or all servers that run in the background."""
    screen = Output(as_json)
    if stop_all and port is not None:
        raise UsageError("--port and --all exclude each other", "give one of them")
    from newsbert.deployment import local_servers

    ports = [server.port for server in local_servers.running()]
    if port is None and not stop_all and len(ports) > 1:
        raise UsageError(
            f"several servers run: ports {', '.join(map(str, sorted(ports)))}",
            f"newsbert serve stop --port {min(ports)}, or --all",
        )

    stopped: list[dict[str, str]] = []

    def on_stopped(server: "DetachedServer") -> None:
        stopped.append({"url": server.url, "model": server.model})
        if not screen.as_json:
            screen.result(f"stopped {server.model} on {server.url}")

    local_servers.stop(port, on_stopped)
    if screen.as_json:
        screen.document({"stopped": stopped})
