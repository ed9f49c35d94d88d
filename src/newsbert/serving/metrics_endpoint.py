"""A server's metrics endpoint: one page with all of its metrics.

prometheus_client's exposition would rename TorchServe's counters, such as `Requests2XX` to `Requests2XX_total`. Its
server has neither a timeout nor a limit, so clients that send nothing would use up the supervisor's threads and files.
"""

import contextlib
import http.client
import http.server
import socketserver
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

from newsbert.serving.protocol import METRICS_PATH

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The format of TorchServe's own metrics and of the workers'."""

TIMEOUT_S = 5.0
_MAX_CONNECTIONS = 8


class _Server(socketserver.ThreadingTCPServer):
    """A server with few threads, so that clients with open connections do not use up the supervisor's.

    Not `http.server`'s own, which looks up the host's name first.
    """

    allow_reuse_address = True  # the port is reserved
    daemon_threads = True

    def __init__(self, address: tuple[str, int], page: Callable[[], str]) -> None:
        self.page = page
        self._slots = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: the client has disconnected."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    timeout = TIMEOUT_S

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != METRICS_PATH:
            self.send_error(HTTPStatus.NOT_FOUND, f"metrics are at {METRICS_PATH}")
            return
        try:
            body = self.server.page().encode()
        except (OSError, http.client.HTTPException):
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "the metrics cannot be read")
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        return "newsbert"

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@contextlib.contextmanager
def answering(host: str, port: int, page: Callable[[], str]) -> Iterator[None]:
    """Answer scrapes in the background until the block ends.

    Args:
        host: The address to listen on.
        port: The port.
        page: Returns the metrics. It may raise OSError or HTTPException.
    """
    with _Server((host, port), page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
