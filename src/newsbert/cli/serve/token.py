"""`newsbert serve token`."""

from pathlib import Path
from typing import Annotated

import typer

from newsbert.cli._options import Debug, Json
from newsbert.cli._output import Output
from newsbert.errors import UsageError

EXAMPLES = """
Examples:

    export NEWSBERT_TOKEN=$(newsbert serve token)

    newsbert serve token --renew --port 8080

    docker exec CONTAINER newsbert serve token

    newsbert serve token --token-file tokens.txt --name ci
"""


def token(
    renew: Annotated[bool, typer.Option("--renew", help="Make a new one; the one before is no longer taken.")] = False,
    port: Annotated[int | None, typer.Option(help="Of the detached server on this port.")] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="Of the server whose key file this is.", show_default="NEWSBERT_KEY_FILE")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="Make a token for a native server with this --token-file; add its hash there.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the new token in that file.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Print a token of a server, or make one.

    A server with --token-auth has one of its own; a native server takes those of its --token-file.
    """
    screen = Output(as_json)
    if token_file is not None or name is not None:
        if token_file is None or name is None or renew or port is not None or key_file is not None:
            raise UsageError(
                "--token-file and --name go together, without other options",
                "newsbert serve token --token-file FILE --name NAME",
            )
        from newsbert.serving.native import tokens

        made = tokens.add(token_file, name)
        if screen.as_json:
            screen.document({"token": made, "name": name, "token_file": str(token_file)})
            return
        screen.result(made)
        screen.log(f"{token_file} has its hash alone: store the token now")
        return
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
