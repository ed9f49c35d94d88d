"""Closing a child's listeners: its connections go on, new ones are refused."""

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from newsbert.serving.torchserve import sockets

_SERVER = """
import socket, socketserver, sys
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    def handle_error(self, request, address): pass
with Server(("127.0.0.1", 0), Echo) as server, socket.create_server(("127.0.0.1", 0)) as other:
    print(server.server_address[1], other.getsockname()[1], flush=True)
    while True:
        try:
            server.serve_forever()
        except OSError:
            pass
"""


@pytest.fixture
def echo() -> Iterator[tuple[int, int, int]]:
    """A child that echoes lines: its pid, its port, and a port that it listens on without ever accepting."""
    with subprocess.Popen([sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        port, other = map(int, child.stdout.readline().split())
        try:
            yield child.pid, port, other
        finally:
            child.kill()


def _echoes(connection: socket.socket) -> bool:
    connection.sendall(b"hello\n")
    return connection.recv(100) == b"hello\n"


def test_open_connections_continue_and_new_ones_are_refused(echo: tuple[int, int, int]) -> None:
    pid, port, other = echo
    with socket.create_connection(("127.0.0.1", port), 5) as before:
        assert _echoes(before)
        if not sockets.close(pid, [port]):
            pytest.skip("this machine does not let a process take its child's sockets")
        assert _echoes(before)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5)
        socket.create_connection(("127.0.0.1", other), 5).close()  # not among those to be closed


def test_accepted_connections_are_not_closed(echo: tuple[int, int, int]) -> None:
    pid, port, _ = echo
    broken: list[BaseException] = []
    answered = 0
    closing = threading.Event()

    def connect() -> None:
        nonlocal answered
        while True:
            try:
                connection = socket.create_connection(("127.0.0.1", port), 5)
            except ConnectionRefusedError:
                return
            except OSError as error:
                broken.append(error)
                return
            with connection:
                try:
                    assert _echoes(connection)
                    answered += 1
                except (OSError, AssertionError) as error:
                    broken.append(error)
                    return

    threads = [threading.Thread(target=connect) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    closed = sockets.close(pid, [port])
    closing.set()
    if not closed:
        pytest.skip("this machine does not let a process take its child's sockets")
    for thread in threads:
        thread.join(30)
    assert broken == []
    assert answered > 8


def test_new_connections_wait_while_held_back(echo: tuple[int, int, int]) -> None:
    pid, port, _ = echo
    with socket.create_connection(("127.0.0.1", port), 5) as before:
        assert _echoes(before)
        sockets.hold_back(pid)
        assert _echoes(before)
        with socket.create_connection(("127.0.0.1", port), 5) as after:
            after.settimeout(0.5)
            with pytest.raises(TimeoutError):
                _echoes(after)
            assert sockets.queued_bytes(pid, port) == 0  # nobody is going to read what it sent


def test_queued_bytes_are_counted(echo: tuple[int, int, int]) -> None:
    pid, port, other = echo
    assert sockets.queued_bytes(pid, port) == 0
    with socket.create_connection(("127.0.0.1", port), 5) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(1)
        with contextlib.suppress(TimeoutError):  # until nobody can take any more
            for _ in range(10_000):
                slow.sendall(b"x" * 65_535 + b"\n")
        assert sockets.queued_bytes(pid, port) > 0
        assert sockets.queued_bytes(pid, other) == 0
