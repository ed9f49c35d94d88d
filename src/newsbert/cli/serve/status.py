"""`newsbert serve status`."""

from newsbert.cli._options import Debug, Json
from newsbert.cli._output import Output

EXAMPLES = """
Examples:

    newsbert serve status
"""


def status(as_json: Json = False, debug: Debug = False) -> None:
    """List the servers that run in the background, and their logs."""
    screen = Output(as_json)
    from newsbert.deployment import local_servers

    servers = sorted(local_servers.running(), key=lambda server: server.port)
    if screen.as_json:
        documents = [
            {
                "port": server.port,
                "url": server.url,
                "model": server.model,
                "container": server.container or None,
                "metrics": server.metrics or None,
                "key_file": server.key_file or None,
                "log": None if server.container else str(local_servers.log_file(server.port)),
            }
            for server in servers
        ]
        screen.document({"servers": documents})
        return
    if not servers:
        screen.note("no detached server is running")
        screen.next_command("newsbert serve locally --detach")
        return
    rows = [
        [
            str(server.port),
            server.model,
            server.url,
            f"docker logs {server.container[:12]}" if server.container else str(local_servers.log_file(server.port)),
        ]
        for server in servers
    ]
    screen.table(["port", "model", "URL", "log"], rows, words=4)
