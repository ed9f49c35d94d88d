"""`newsbert serve stop`."""

from typing import TYPE_CHECKING, Annotated

import typer

from newsbert.cli._options import Debug, Json
from newsbert.cli._output import Output

if TYPE_CHECKING:
    from newsbert.deployment.local_servers import DetachedServer


EXAMPLES = """
Examples:

    newsbert serve stop

    newsbert serve stop --port 8080
"""


def stop(
    port: Annotated[int | None, typer.Option(help="The server on this port.", show_default="all")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Stop servers that were started with --detach."""
    screen = Output(as_json)
    from newsbert.deployment import local_servers

    stopped: list[dict[str, str]] = []

    def on_stopped(server: "DetachedServer") -> None:
        stopped.append({"url": server.url, "model": server.model})
        if not screen.as_json:
            screen.result(f"stopped {server.model} on {server.url}")

    local_servers.stop(port, on_stopped)
    if screen.as_json:
        screen.document({"stopped": stopped})
