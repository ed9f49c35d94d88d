"""uvicorn's HTTP protocol with limits: slow clients are closed, headers are bounded, and a stop loses no request."""

import asyncio
import collections
import json
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

MAX_HEADER_BYTES = 64 * 1024
"""Maximum size of a request's line and headers."""

STOP_GRACE_S = 1.0
"""Time for which a connection without a request stays open when the server stops: one may be on its way."""


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits of every connection, and of their number.

    Attributes:
        max_connections: Maximum number of connections; a new one replaces the one that has been idle for longest.
        header_timeout_s: Seconds for a request's headers, from the first byte.
        body_timeout_s: Seconds for a request's body, and for reading an answer.
        keep_alive_s: Seconds for which an idle connection is kept.
    """

    max_connections: int
    header_timeout_s: float
    body_timeout_s: float
    keep_alive_s: float


class LimitedProtocol(HttpToolsProtocol):
    """A connection whose requests must arrive in time.

    uvicorn closes idle connections, but waits for the rest of a request for ever. And when it stops, it closes idle
    connections at once, so a request that is on its way is lost. Here, a connection stays open until it is answered
    once more, or is idle for the grace period.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        limits: ConnectionLimits,
        idle: "collections.OrderedDict[LimitedProtocol, None]",
    ) -> None:
        super().__init__(config, server_state, {})
        self.timeout_keep_alive = limits.keep_alive_s  # type: ignore[assignment]
        self._limits, self._idle = limits, idle
        self._deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None
        self._num_header_bytes = 0
        self._is_in_headers = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        if len(self.connections) >= self._limits.max_connections:
            if not self._idle:
                transport.abort()
                return
            oldest, _ = self._idle.popitem(last=False)
            oldest.abort()
        super().connection_made(transport)
        self._idle[self] = None
        self._start_deadline(self._limits.header_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        self._stop_deadline()
        self.resume_writing()
        self._idle.pop(self, None)
        if self.transport is not None:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse data, unless the headers are too long."""
        self._idle.pop(self, None)
        self._num_header_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(HTTPStatus.BAD_REQUEST, "this is no valid HTTP request")
        if self._is_in_headers and self._num_header_bytes > MAX_HEADER_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the headers are too long")

    def on_message_begin(self) -> None:
        """Wait for the headers."""
        super().on_message_begin()
        if self._deadline is None:
            self._start_deadline(self._limits.header_timeout_s)

    def on_headers_complete(self) -> None:
        """Wait for the body."""
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEADER_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the headers are too long")
            return
        self._is_in_headers = False
        self._start_deadline(self._limits.body_timeout_s)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Stop waiting: the server's turn has come."""
        if self.parser.should_upgrade() or self.transport.is_closing():
            return  # its body, if any, is read later
        self._stop_deadline()
        self._is_in_headers, self._num_header_bytes = True, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        if self.timeout_keep_alive_task is not None:
            self._idle[self] = None

    def pause_writing(self) -> None:
        """Wait for the client to read its answer."""
        super().pause_writing()
        self._write_deadline = self.loop.call_later(self._limits.body_timeout_s, self.abort)

    def resume_writing(self) -> None:
        """Stop waiting."""
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None
        if self.flow is not None:
            super().resume_writing()

    def shutdown(self) -> None:
        """Close the connection after its next answer, or if it sends no whole headers for a while."""
        if self._is_answering:
            self.cycle.keep_alive = False
        else:
            self.loop.call_later(STOP_GRACE_S, self._close_unless_requested)

    def abort(self) -> None:
        """Close the connection at once, without sending what it has to send."""
        self.transport.abort()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Answer a request to upgrade as if it were none, such as the first request of Java's HTTP client.

        The parser leaves all that follows its headers unread, so another one gets the headers that say where the
        body ends, and then the rest.
        """
        framing = [
            name + b": " + value for name, value in self.headers if name in {b"content-length", b"transfer-encoding"}
        ]
        self.parser = httptools.HttpRequestParser(_SkipFirstHead(self))
        self._num_header_bytes = 0
        self.data_received(b"\r\n".join([b"POST / HTTP/1.1", *framing, b"", b""]) + rest)

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _close_unless_requested(self) -> None:
        if self._is_in_headers and not self._is_answering:
            self.transport.close()

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        if self.transport.is_closing():
            return
        body = json.dumps({"code": status.value, "type": status.phrase.title().replace(" ", ""), "message": message})
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
        self.transport.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode())
        self.transport.close()

    def _start_deadline(self, seconds: float) -> None:
        self._stop_deadline()
        self._deadline = self.loop.call_later(seconds, self.abort)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _SkipFirstHead:
    """Callbacks of a parser for a protocol that has the head of the first request already."""

    def __init__(self, protocol: LimitedProtocol) -> None:
        self._protocol = protocol
        self._is_first = True
        self.on_body = protocol.on_body
        self.on_url = self._skip_first(protocol.on_url)
        self.on_header = self._skip_first(protocol.on_header)
        self.on_message_begin = self._skip_first(protocol.on_message_begin)
        self.on_headers_complete = self._skip_first(protocol.on_headers_complete)

    def on_message_complete(self) -> None:
        """End a request; the next one has a head of its own."""
        self._is_first = False
        self._protocol.on_message_complete()

    def _skip_first(self, callback: Callable[..., None]) -> Callable[..., None]:
        return lambda *arguments: None if self._is_first else callback(*arguments)


def make_config(app: Any) -> Config:
    """Return uvicorn's configuration for an application behind this protocol."""
    config = Config(
        app, http=LimitedProtocol, loop="uvloop", ws="none", lifespan="off", access_log=False, log_level="critical",
        server_header=False, proxy_headers=False, log_config=None,
    )  # fmt: skip
    config.load()
    return config
