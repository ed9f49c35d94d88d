"""Ports of this machine."""

import socket

from newsbert.errors import MachineError, UsageError

LOOPBACK = "127.0.0.1"


def connect_host(host: str) -> str:
    """The address to reach a server by from this machine that listens on `host`."""
    return LOOPBACK if host == "0.0.0.0" else host  # noqa: S104


def claim_port(host: str, port: int) -> int:
    """Return `port` if it is free on `host`, or a free one for 0.

    Raises:
        UsageError: If the host is empty or an IPv6 address.
        MachineError: If it is in use or no port, or the host is none of this machine's.
    """
    with bind_port(host, port) as held:
        return int(held.getsockname()[1])


def bind_port(host: str, port: int, hint: str = "newsbert serve locally --port 0 takes a free port") -> socket.socket:
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
