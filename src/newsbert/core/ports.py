"""Ports of this machine."""

import socket

from newsbert.errors import MachineError, UsageError

LOOPBACK = "127.0.0.1"


def connect_host(host: str) -> str:
    """Return the address by which this machine reaches a server that listens on `host`."""
    return LOOPBACK if host == "0.0.0.0" else host  # noqa: S104


def claim_port(host: str, port: int) -> int:
    """Return `port` if it is free on `host`, or a free one for 0.

    Raises:
        UsageError: If the host is empty or an IPv6 address.
        MachineError: If the port is in use or invalid, or the host is not an address of this machine.
    """
    with bind_port(host, port) as bound:
        return int(bound.getsockname()[1])


def bind_port(host: str, port: int, hint: str = "newsbert serve locally --port 0 takes a free port") -> socket.socket:
    """Bind a port without listening on it.

    A program that sets SO_REUSEADDR, as Java does, can still listen there.

    Args:
        host: The address.
        port: The port, or 0 for a free one.
        hint: Hint of the error if the port is not available.

    Raises:
        UsageError: If the host is empty or an IPv6 address.
        MachineError: If the port is in use or invalid, or the host is not an address of this machine.
    """
    if not host:
        raise UsageError("--host is empty", "give an address of this machine, such as 127.0.0.1")
    if ":" in host:
        raise UsageError(f"--host {host}: newsbert listens on IPv4 addresses only", "give one, such as 127.0.0.1")
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except (OSError, UnicodeError, OverflowError) as error:  # the latter two: an invalid host name or port
        bound.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise MachineError(f"cannot listen on {host}:{port}: {reason}", hint) from error
    return bound
