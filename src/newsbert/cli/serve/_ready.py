"""Output of a server that is ready."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from newsbert.cli._output import Output

if TYPE_CHECKING:
    from newsbert.deployment.local_servers import DetachedServer
    from newsbert.serving.endpoints import Endpoints


def render_ready(screen: Output, name: str, address: "Endpoints", key_file: Path | None, grpc: bool) -> None:
    grpc_address = f"{address.grpc_host}:{address.grpc_port}" if grpc else None
    details: dict[str, Any] = {
        "model": name,
        "url": address.url,
        "predictions": address.predictions_url,
        "grpc": grpc_address,
        "metrics": address.metrics_url,
        "key_file": None if key_file is None else str(key_file),
    }
    if screen.as_json:
        screen.document(details)
        return
    if screen.log_format == "json":
        screen.event("ready", f"{name} is ready on {address.url}", **details)
        return
    screen.result(f"{name} is ready on {address.url}")
    if grpc_address:
        screen.result(f"  gRPC on {grpc_address}")
    if address.metrics_url:
        screen.result(f"  metrics on {address.metrics_url}")
    bearer = ""
    if key_file is not None:
        screen.result(f"  tokens in {key_file}")
        bearer = f' -H "Authorization: Bearer $(newsbert serve token --key-file {key_file})"'
    screen.result(f"  curl {address.predictions_url} -d 'data=Stocks fall as oil rises'{bearer}")
    screen.log("Ctrl+C stops it")


def render_detached(screen: Output, server: "DetachedServer") -> None:
    key_file = server.key_file or None
    if screen.as_json:
        summary = {"model": server.model, "url": server.url, "port": server.port}
        screen.document({**summary, "metrics": server.metrics or None, "key_file": key_file})
        return
    screen.result(f"{server.model} is ready on {server.url}")
    if server.metrics:
        screen.result(f"  metrics on {server.metrics}")
    if key_file:
        screen.result(f"  tokens in {key_file}")
        screen.next_command(f"export NEWSBERT_KEY_FILE={key_file}")
    screen.next_command(f"newsbert predict --url {server.url} 'Stocks fall as oil rises'")
    screen.next_command(f"newsbert serve stop --port {server.port}")
