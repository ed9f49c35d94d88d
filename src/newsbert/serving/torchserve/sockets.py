"""Another process's listening sockets: closing them while the accepted connections stay open (Linux).

On SIGTERM TorchServe breaks off its connections: netty closes them all as soon as its event loops end. So its listeners
are closed from outside. `pidfd_getfd`, which a process may call for its own children, copies a socket. Shutting down
the copy shuts the socket down for all its holders. Where the call is forbidden, as under Docker's seccomp profile, the
process can only be prevented from accepting connections. A client that connects then waits until the process ends.
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
_UNACCEPTED_INODE = "0"
_ACCEPT_TIMEOUT_S = 0.5
# A packet filter that drops packets that open a connection (SYN without ACK, in the TCP header's flags at byte 13).
_NO_NEW_CONNECTIONS = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the byte
        (0x54, 0, 0, 0x12),  # and SYN|ACK
        (0x15, 0, 1, 0x02),  # equal to SYN?
        (0x06, 0, 0, 0),  # yes: drop
        (0x06, 0, 0, 0xFFFF),  # no: accept
    )
)


@dataclass(frozen=True)
class _Socket:
    inode: str
    port: int
    state: str
    queued: int


def close(pid: int, ports: Collection[int]) -> bool:
    """Close listeners of a child; its accepted connections stay open.

    Args:
        pid: The child.
        ports: Local TCP ports that it listens on.

    Returns:
        Whether they are closed: false where copying another process's sockets is forbidden.
    """
    inodes = {entry.inode for entry in _list_sockets(pid) if entry.state == _LISTEN and entry.port in ports}
    with contextlib.ExitStack() as stack:
        try:
            copies = [stack.enter_context(copy) for copy in _copy_sockets(pid, inodes)]
            # Drop new connections first, then let the waiting ones be accepted: closing would break them off.
            for copy in copies:
                _drop_new_connections(copy)
            wait_accepted(pid, ports)
            for copy in copies:
                copy.shutdown(socket.SHUT_RD)
        except OSError:
            return False
    return True


def listening(pid: int, ports: Collection[int]) -> bool:
    """Return whether all `ports` have a listener in the process's network namespace."""
    return set(ports) <= {entry.port for entry in _list_sockets(pid) if entry.state == _LISTEN}


def hold_back(pid: int) -> None:
    """Prevent a child from accepting connections, and from opening any other file descriptor."""
    with contextlib.suppress(OSError, ValueError):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (1, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))


def queued_bytes(pid: int, port: int) -> int:
    """Return the bytes that wait in accepted connections on `port`, to be read or to be taken by the client."""
    connections = (entry for entry in _list_sockets(pid) if entry.port == port and entry.state != _LISTEN)
    return sum(entry.queued for entry in connections if entry.inode != _UNACCEPTED_INODE)


def wait_accepted(pid: int, ports: Collection[int]) -> None:
    """Wait until no connection waits to be accepted; the queue of a listener counts connections."""
    deadline = time.monotonic() + _ACCEPT_TIMEOUT_S
    while time.monotonic() < deadline:
        if not any(entry.queued for entry in _list_sockets(pid) if entry.state == _LISTEN and entry.port in ports):
            return
        time.sleep(0.002)


def _drop_new_connections(listener: socket.socket) -> None:
    program = ctypes.create_string_buffer(_NO_NEW_CONNECTIONS, len(_NO_NEW_CONNECTIONS))
    filter_program = struct.pack("HP", len(_NO_NEW_CONNECTIONS) // 8, ctypes.addressof(program))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_program)


def _copy_sockets(pid: int, inodes: Collection[str]) -> list[socket.socket]:
    """Return copies of a process's sockets.

    Raises:
        OSError: If copying is forbidden.
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


def _list_sockets(pid: int) -> list[_Socket]:
    """Return the TCP sockets in the process's network namespace, its own and others'."""
    entries = []
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{name}").read_text(encoding="ascii").splitlines()[1:]:
                _, local, _, state, queues, _, _, _, _, inode, *_ = line.split()
                queued = sum(int(size, 16) for size in queues.split(":"))
                entries.append(_Socket(inode, int(local.rpartition(":")[2], 16), state, queued))
    return entries
