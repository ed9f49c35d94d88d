"""Another process's listening sockets: closing them while the connections that it has go on (Linux).

On SIGTERM TorchServe breaks off its connections: netty closes them all as soon as its event loops are told to end. So
its listeners are closed from outside: a copy of the socket is taken with `pidfd_getfd`, which a process may do with its
own children, and shut down, which is for all who have it. Where that is forbidden, as in a container with Docker's
seccomp profile, the process can only be kept from accepting: whoever connects then waits, unanswered, until it is gone.
"""

import contextlib
import ctypes
import os
import resource
import socket
import struct
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

_SYS_PIDFD_GETFD = 438  # the same on every architecture
_SO_ATTACH_FILTER = 26
_LISTEN = "0A"
_NOT_ACCEPTED = "0"
_ACCEPT_TIMEOUT_S = 0.5
# A packet filter that drops what opens a connection (SYN without ACK, in the TCP header's flags at byte 13).
_NO_NEW_CONNECTIONS = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the byte
        (0x54, 0, 0, 0x12),  # and SYN|ACK
        (0x15, 0, 1, 0x02),  # equal to SYN?
        (0x06, 0, 0, 0),  # yes: drop
        (0x06, 0, 0, 0xFFFF),  # no: keep
    )
)


@dataclass(frozen=True)
class _Socket:
    inode: str
    port: int
    state: str
    queued: int


def close(pid: int, ports: Collection[int]) -> bool:
    """Close listeners of a child; the connections that it has accepted go on.

    Args:
        pid: The child.
        ports: Local TCP ports that it listens on.

    Returns:
        Whether they are closed: false where taking another process's sockets is forbidden.
    """
    inodes = {each.inode for each in _sockets(pid) if each.state == _LISTEN and each.port in ports}
    with contextlib.ExitStack() as stack:
        try:
            copies = [stack.enter_context(each) for each in _copies(pid, inodes)]
            # First no more connections, then those that wait are accepted: closing would break them off.
            for copy in copies:
                _drop_new(copy)
            wait_accepted(pid, ports)
            for copy in copies:
                copy.shutdown(socket.SHUT_RD)
        except OSError:
            return False
    return True


def listening(pid: int, ports: Collection[int]) -> bool:
    """Tell whether somebody in the process's network listens on each of `ports`."""
    return set(ports) <= {each.port for each in _sockets(pid) if each.state == _LISTEN}


def hold_back(pid: int) -> None:
    """Keep a child from accepting connections and from opening anything else."""
    with contextlib.suppress(OSError, ValueError):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (1, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))


def queued_bytes(pid: int, port: int) -> int:
    """Bytes of accepted connections on `port` that wait to be read, or to be taken by the other side."""
    connections = (each for each in _sockets(pid) if each.port == port and each.state != _LISTEN)
    return sum(each.queued for each in connections if each.inode != _NOT_ACCEPTED)


def wait_accepted(pid: int, ports: Collection[int]) -> None:
    """Wait until no connection waits to be accepted: a listener's queue is counted in connections."""
    deadline = time.monotonic() + _ACCEPT_TIMEOUT_S
    while time.monotonic() < deadline:
        if not any(each.queued for each in _sockets(pid) if each.state == _LISTEN and each.port in ports):
            return
        time.sleep(0.002)


def _drop_new(listener: socket.socket) -> None:
    program = ctypes.create_string_buffer(_NO_NEW_CONNECTIONS, len(_NO_NEW_CONNECTIONS))
    filter_of = struct.pack("HP", len(_NO_NEW_CONNECTIONS) // 8, ctypes.addressof(program))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_of)


def _copies(pid: int, inodes: Collection[str]) -> list[socket.socket]:
    """Copies of a process's sockets.

    Raises:
        OSError: If they may not be taken.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(pid)
    copies: list[socket.socket] = []
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if str(link.readlink()).removeprefix("socket:").strip("[]") not in inodes:
                    continue
                descriptor = libc.syscall(_SYS_PIDFD_GETFD, pidfd, int(link.name), 0)
                if descriptor < 0:
                    raise PermissionError(ctypes.get_errno(), "pidfd_getfd")
                copies.append(socket.socket(fileno=descriptor))
    except OSError:
        for copy in copies:
            copy.close()
        raise
    finally:
        os.close(pidfd)
    return copies


def _sockets(pid: int) -> list[_Socket]:
    """The TCP sockets of the process's network, its own and others'."""
    found = []
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{name}").read_text(encoding="ascii").splitlines()[1:]:
                _, local, _, state, queues, _, _, _, _, inode, *_ = line.split()
                queued = sum(int(each, 16) for each in queues.split(":"))
                found.append(_Socket(inode, int(local.rpartition(":")[2], 16), state, queued))
    return found
