"""Endpoints of a server: its addresses, and the reservation of its ports."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from newsbert.core.ports import LOOPBACK, bind_port, connect_host
from newsbert.core.settings import ServeSettings
from newsbert.errors import UsageError
from newsbert.serving import protocol
from newsbert.serving.protocol import SERVED_NAME

_ORIGIN = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?")


@dataclass(frozen=True)
class Endpoints:
    """Addresses of a server: HTTP, gRPC, metrics; and on loopback TorchServe's own metrics."""

    host: str
    port: int
    grpc_host: str = LOOPBACK
    grpc_port: int = 0
    metrics_host: str = LOOPBACK
    metrics_port: int = 0
    frontend_metrics_port: int = 0
    scheme: str = "http"

    @property
    def connect_host(self) -> str:
        """The address for connections from this machine."""
        return connect_host(self.host)

    @property
    def url(self) -> str:
        """The base URL for requests from this machine."""
        return f"{self.scheme}://{self.connect_host}:{self.port}"

    @property
    def metrics_url(self) -> str | None:
        """The URL for Prometheus, seen from this machine; `None` without a port for metrics."""
        port = self.metrics_port
        return f"http://{connect_host(self.metrics_host)}:{port}{protocol.METRICS_PATH}" if port else None

    @property
    def predictions_url(self) -> str:
        """The URL for prediction requests."""
        return f"{self.url}/predictions/{SERVED_NAME}"


def check_ports(settings: ServeSettings) -> None:
    """Check that no port has two purposes.

    Raises:
        UsageError: If a port has two purposes.
    """
    if settings.port and settings.grpc_port == settings.port:
        raise UsageError(f"port {settings.grpc_port} cannot be both for HTTP and gRPC", "give another --grpc-port")
    if settings.metrics_port and settings.metrics_port in {settings.port, settings.grpc_port}:
        raise UsageError(f"port {settings.metrics_port} cannot be for metrics too", "give another --metrics-port")


def check_origin(origin: str | None) -> None:
    """Check that the setting for CORS is an origin.

    Raises:
        UsageError: If it is none.
    """
    if origin not in {None, "*"} and not _ORIGIN.fullmatch(str(origin)):
        raise UsageError(f"{origin!r} is no origin", "give scheme, host and port alone, such as https://news.example")


@contextlib.contextmanager
def reserved_endpoints(settings: ServeSettings) -> Iterator[Endpoints]:
    """Reserve the ports of a server until the block ends.

    Otherwise any outgoing connection could get one of them as its local port, a connection of newsbert's included. A
    program that connects to a free port of its own machine often enough can even connect to itself.

    Raises:
        UsageError: If a port has two purposes.
        MachineError: If a port is in use.
    """
    grpc_host, grpc_port = (LOOPBACK, 0) if settings.grpc_port is None else (settings.host, settings.grpc_port)
    metrics_host, metrics_port = (
        (LOOPBACK, 0) if settings.metrics_port is None else (settings.host, settings.metrics_port)
    )
    check_ports(settings)
    requested = [
        (settings.host, settings.port),
        (grpc_host, grpc_port),
        (metrics_host, metrics_port),
        (LOOPBACK, 0),
    ]
    with contextlib.ExitStack() as stack:
        port, grpc_port, metrics_port, frontend_metrics_port = (
            int(stack.enter_context(bind_port(*address)).getsockname()[1]) for address in requested
        )
        scheme = "https" if settings.tls_cert else "http"
        yield Endpoints(
            settings.host, port, grpc_host, grpc_port, metrics_host, metrics_port, frontend_metrics_port, scheme
        )
