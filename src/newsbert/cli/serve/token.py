"""`newsbert serve token`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from newsbert.cli._options import Debug, Json
from newsbert.cli._output import Output
from newsbert.errors import UsageError

if TYPE_CHECKING:
    pass


EXAMPLES = """
Examples:

    export NEWSBERT_TOKEN=$(newsbert serve token)

    newsbert serve token --renew --port 8080

    docker exec CONTAINER newsbert serve token
"""


def token(
    renew: Annotated[bool, typer.Option("--renew", help="Make a new one; the one before is no longer taken.")] = False,
    port: Annotated[int | None, typer.Option(help="Of the detached server on this port.")] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="Of the server whose key file this is.", show_default="NEWSBERT_KEY_FILE")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Print the token for requests to a server with --token-auth."""
    screen = Output(as_json)
    if port is not None and key_file is not None:
        raise UsageError("--port and --key-file exclude each other", "give one of them")
    from newsbert.deployment import local_servers
    from newsbert.serving import auth

    file = key_file or (
        local_servers.key_file(port) if port is not None else auth.configured() or local_servers.key_file(None)
    )
    keys = auth.read(file)
    if renew or keys.expired:
        keys = auth.rotate(file)
    if screen.as_json:
        screen.document({"token": keys.inference, "expires": keys.expires.isoformat(), "key_file": str(file)})
        return
    screen.result(keys.inference)
