"""Graceful shutdown of a server: no new connections, then answers to all requests that were sent."""

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
    """Stop new connections to a TorchServe, and wait until it has answered all its requests.

    Requests wait in TorchServe's queue in order, and cannot be observed there. So this function sends a last request
    behind them. Once it is answered, all earlier requests have left the queue. Later requests get a 503, which also
    closes the connection, so the drain ends even if clients reuse their connections for more requests. New connections
    are refused from the start. Where that is impossible they get the 503 too, except for the very last ones.

    Args:
        pid: The frontend.
        host: Address to connect to.
        port: The port of its HTTP interface.
        other_ports: Further ports that must accept no new connections.
        activity: Heartbeat of its workers.
        headers: Headers of the last request.
        path: Path of the last request.
        quiet_s: Time without a busy worker after which the drain is complete; longer than a batch waits to fill.
        limit_s: Maximum time to wait.
        on: Returns false when further waiting is useless.

    Returns:
        Whether the drain completed in time.
    """
    deadline = time.monotonic() + limit_s
    with contextlib.ExitStack() as stack:
        last_requests = []
        for _ in range(_LAST_REQUESTS):  # connected before the listener closes; several, since a full queue refuses one
            connection = http.client.HTTPConnection(host, port, timeout=_READ_TIMEOUT_S)
            stack.callback(connection.close)
            with contextlib.suppress(OSError):
                connection.connect()
                last_requests.append(connection)
        closed = sockets.close(pid, (port, *other_ports))
        read_by = time.monotonic() + _READ_TIMEOUT_S
        while sockets.queued_bytes(pid, port) and on() and time.monotonic() < read_by:
            time.sleep(_POLL_S)
        for connection in last_requests:
            if time.monotonic() > deadline or _send_last_request(connection, path, headers, deadline):
                break
            time.sleep(_FULL_QUEUE_S)
    time.sleep(_POLL_S)
    activity.close()
    if not closed:
        # Up to now new connections got a 503. The last ones get no answer, which is better than half an answer.
        _wait_until_quiet(lambda: not activity.busy(), 0, on, deadline)
        sockets.wait_accepted(pid, (port, *other_ports))
        sockets.hold_back(pid)
    return _wait_until_quiet(lambda: not activity.busy() and not sockets.queued_bytes(pid, port), quiet_s, on, deadline)


def _wait_until_quiet(quiet: Callable[[], bool], quiet_s: float, on: Callable[[], bool], deadline: float) -> bool:
    """Wait for `quiet_s` seconds of quiet; return whether they came before the deadline."""
    quiet_since = time.monotonic()
    while on():
        if not quiet():
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since >= quiet_s:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return False


def _send_last_request(
    connection: http.client.HTTPConnection, path: str, headers: Mapping[str, str], deadline: float
) -> bool:
    try:
        connection.sock.settimeout(max(0.01, deadline - time.monotonic()))
        connection.request("POST", path, b"last?", {"Content-Type": "text/plain", **headers})
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
