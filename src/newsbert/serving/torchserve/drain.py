"""Ending a server with nobody cut off: no new connections, then every request that was sent is answered."""

import contextlib
import http.client
import time
from collections.abc import Callable, Mapping

from newsbert.serving.heartbeat import Heartbeat
from newsbert.serving.torchserve import sockets

_LAST_REQUESTS = 4
_POLL_S = 0.01
_READ_TIMEOUT_S = 0.5
_FULL_QUEUE_S = 0.1


def drain(  # noqa: PLR0913 - options by name
    pid: int,
    host: str,
    port: int,
    *,
    other_ports: tuple[int, ...],
    activity: Heartbeat,
    headers: Mapping[str, str],
    path: str,
    quiet_s: float,
    limit_s: float,
    on: Callable[[], bool],
) -> bool:
    """Wait until a TorchServe that takes no more connections has answered what it was asked.

    Requests wait in TorchServe's queue, in order, where nobody can see them. So a request of our own is put behind
    them: once that is answered, they have all been taken from the queue, and what comes after is turned away with a
    503, which also closes the connection. So there is an end, also with clients that keep their connection and ask on.
    New connections are refused from the beginning, or where that cannot be done get the 503 too, but for the last ones.

    Args:
        pid: The frontend.
        host: Where it listens, as an address to connect to.
        port: The port of its HTTP interface.
        other_ports: Further ports on which it is to take no more connections.
        activity: What its workers tell.
        headers: Sent with our own request.
        path: Where that goes.
        quiet_s: How long no worker may have been busy for it to be over; longer than a batch may wait to fill.
        limit_s: How long to wait at most.
        on: False when it is no use to wait any longer.

    Returns:
        Whether it came to an end in time.
    """
    deadline = time.monotonic() + limit_s
    with contextlib.ExitStack() as stack:
        last_requests = []
        for _ in range(_LAST_REQUESTS):  # connected before it is too late; several, as a full queue refuses one
            connection = http.client.HTTPConnection(host, port, timeout=_READ_TIMEOUT_S)
            stack.callback(connection.close)
            with contextlib.suppress(OSError):
                connection.connect()
                last_requests.append(connection)
        refused = sockets.close(pid, (port, *other_ports))
        read_by = time.monotonic() + _READ_TIMEOUT_S
        while sockets.queued_bytes(pid, port) and on() and time.monotonic() < read_by:
            time.sleep(_POLL_S)
        for connection in last_requests:
            if time.monotonic() > deadline or _answered(connection, path, headers, deadline):
                break
            time.sleep(_FULL_QUEUE_S)
    time.sleep(_POLL_S)
    activity.close()
    if not refused:
        # Until here new connections got a 503. These last ones get nothing, but so they do not get half of an answer.
        _wait(lambda: not activity.busy(), 0, on, deadline)
        sockets.wait_accepted(pid, (port, *other_ports))
        sockets.hold_back(pid)
    return _wait(lambda: not activity.busy() and not sockets.queued_bytes(pid, port), quiet_s, on, deadline)


def _wait(quiet: Callable[[], bool], quiet_s: float, on: Callable[[], bool], deadline: float) -> bool:
    """Wait until it has been quiet for so long; tell whether it was."""
    since = time.monotonic()
    while on():
        if not quiet():
            since = time.monotonic()
        elif time.monotonic() - since >= quiet_s:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return False


def _answered(connection: http.client.HTTPConnection, path: str, headers: Mapping[str, str], deadline: float) -> bool:
    try:
        connection.sock.settimeout(max(0.01, deadline - time.monotonic()))
        connection.request("POST", path, b"last?", {"Content-Type": "text/plain", **headers})
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
