"""Acceptance of connections: all that wait at once.

uvloop's own server accepts one connection in every turn of the event loop. Where every request has a connection of its
own, no two requests would then be computed together, and a server that stops would leave most of them unanswered.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable

from newsbert.serving.native.certificate import Certificate

_BACKLOG = 4096
_PAUSE_S = 0.1
"""Time without new connections when there are too many."""


class Acceptor:
    """Acceptance of a socket's connections in the event loop.

    Args:
        listener: A bound socket.
        make_protocol: Makes the protocol of a connection.
        certificate: Certificate of TLS; without one, connections have no TLS.
        handshake_timeout_s: Seconds for its handshake.
    """

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        certificate: Certificate | None,
        handshake_timeout_s: float,
    ) -> None:
        self._listener, self._make_protocol = listener, make_protocol
        self._certificate, self._handshake_timeout_s = certificate, handshake_timeout_s if certificate else None
        self._loop = asyncio.get_running_loop()
        self._starting: set[asyncio.Task[None]] = set()
        listener.setblocking(False)
        listener.listen(_BACKLOG)
        self._loop.add_reader(listener, self._accept_all)

    async def close(self) -> None:
        """Accept the connections that clients have opened, and then no more."""
        self._loop.remove_reader(self._listener)
        self._accept_all()
        self._listener.close()
        if self._starting:
            await asyncio.wait(self._starting)

    def _accept_all(self) -> None:
        while len(self._starting) < _BACKLOG:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError:  # no file is left
                break
            task = self._loop.create_task(self._start(connection))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)
        if self._loop.remove_reader(self._listener):
            self._loop.call_later(_PAUSE_S, self._resume)

    async def _start(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        context = self._certificate.context if self._certificate else None
        with contextlib.suppress(OSError):  # it has no TLS, or is closed again
            await self._loop.connect_accepted_socket(
                self._make_protocol, connection, ssl=context, ssl_handshake_timeout=self._handshake_timeout_s
            )

    def _resume(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._accept_all)
