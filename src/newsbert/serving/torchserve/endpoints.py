"""Where a server listens: the addresses that it has, and the ports held for it until it takes them."""

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from newsbert.core.settings import ServeSettings
from newsbert.errors import MachineError, UsageError
from newsbert.serving.archive import SERVED_NAME
from newsbert.serving.torchserve import metrics_endpoint

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Address:
    """Where a server listens: HTTP, gRPC, metrics; and on loopback gRPC's management and TorchServe's own metrics."""

    host: str
    port: int
    grpc_host: str = LOOPBACK
    grpc_port: int = 0
    metrics_host: str = LOOPBACK
    metrics_port: int = 0
    grpc_management_port: int = 0
    frontend_metrics_port: int = 0

    @property
    def connect_host(self) -> str:
        """The address to reach it by from this machine."""
        return connect_host(self.host)

    @property
    def grpc_ports(self) -> tuple[int, int]:
        """The ports of both gRPC interfaces."""
        return self.grpc_port, self.grpc_management_port

    @property
    def url(self) -> str:
        """The base URL to reach it by from this machine."""
        return f"http://{self.connect_host}:{self.port}"

    @property
    def metrics_url(self) -> str | None:
        """The URL that Prometheus is to scrape, seen from this machine; `None` where it cannot be reached."""
        port = self.metrics_port
        return f"http://{connect_host(self.metrics_host)}:{port}{metrics_endpoint.PATH}" if port else None

    @property
    def predictions_url(self) -> str:
        """The URL that takes texts."""
        return f"{self.url}/predictions/{SERVED_NAME}"


def connect_host(host: str) -> str:
    """The address to reach a server by from this machine that listens on `host`."""
    return LOOPBACK if host == "0.0.0.0" else host  # noqa: S104


def claim_port(host: str, port: int) -> int:
    """Return `port` if it is free on `host`, or a free one for 0.

    Raises:
        UsageError: If the host is empty or an IPv6 address.
        MachineError: If it is in use or no port, or the host is none of this machine's.
    """
    with hold(host, port) as held:
        return int(held.getsockname()[1])


def check_ports(settings: ServeSettings) -> None:
    """Do nothing if every port is for one thing.

    Raises:
        UsageError: If one is to be for two.
    """
    if settings.port and settings.grpc_port == settings.port:
        raise UsageError(f"port {settings.grpc_port} cannot be both for HTTP and gRPC", "give another --grpc-port")
    if settings.metrics_port and settings.metrics_port in {settings.port, settings.grpc_port}:
        raise UsageError(f"port {settings.metrics_port} cannot be for metrics too", "give another --metrics-port")


def hold(host: str, port: int, hint: str = "newsbert serve locally --port 0 takes a free port") -> socket.socket:
    """Bind a port without listening: whoever sets SO_REUSEADDR, as Java does, may listen there all the same.

    Args:
        host: The address.
        port: The port, or 0 for a free one.
        hint: What to do if it cannot be had.

    Raises:
        UsageError: If the host is empty or an IPv6 address.
        MachineError: If the port is in use or none, or the host is none of this machine's.
    """
    if not host:
        raise UsageError("--host is empty", "give an address of this machine, such as 127.0.0.1")
    if ":" in host:
        raise UsageError(f"--host {host}: newsbert listens on IPv4 addresses only", "give one, such as 127.0.0.1")
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        held.bind((host, port))
    except (OSError, UnicodeError, OverflowError) as error:  # the latter: no name, no port that could be
        held.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise MachineError(f"cannot listen on {host}:{port}: {reason}", hint) from error
    return held


@contextlib.contextmanager
def claimed(settings: ServeSettings) -> Iterator[Address]:
    """The ports that the server is to have, held as long as the block.

    Otherwise any program that connects somewhere might get one for its own end, ours among them: whoever tries to
    connect to a free port of his own machine often enough connects to himself.

    Raises:
        UsageError: If one is to be for two things.
        MachineError: If one is in use.
    """
    grpc_host, grpc_port = (LOOPBACK, 0) if settings.grpc_port is None else (settings.host, settings.grpc_port)
    metrics_host, metrics_port = (
        (LOOPBACK, 0) if settings.metrics_port is None else (settings.host, settings.metrics_port)
    )
    check_ports(settings)
    wanted = [
        (settings.host, settings.port),
        (grpc_host, grpc_port),
        (metrics_host, metrics_port),
        (LOOPBACK, 0),
        (LOOPBACK, 0),
    ]
    with contextlib.ExitStack() as stack:
        ports = [int(stack.enter_context(hold(*each)).getsockname()[1]) for each in wanted]
        yield Address(settings.host, ports[0], grpc_host, ports[1], metrics_host, *ports[2:])
