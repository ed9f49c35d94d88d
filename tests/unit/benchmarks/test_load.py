"""The load generator of benchmarks/serving.py, against servers that misbehave in known ways."""

import json
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

LOAD = Path(__file__).parents[3] / "benchmarks" / "load.py"
pytestmark = pytest.mark.skipif(not LOAD.is_file(), reason="the benchmarks are not in a source distribution")

REQUESTS = [f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n{index}" for index in range(4)]
Answer = Callable[[bytes, int], bytes | None]


@contextmanager
def serve(answer: Answer) -> Iterator[int]:
    """A server that sends what `answer(request, which of its connection)` gives; nothing closes the connection."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            turn = 0
            while data := self.request.recv(65536):
                content = answer(data, turn)
                if content is None:
                    return
                self.request.sendall(content)
                turn += 1

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 256

    with Server(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running.server_address[1]
        running.shutdown()


def make_ok_response(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 " + status + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def run(port: int, **plan: Any) -> dict[str, Any]:
    plan = {"port": port, "requests": REQUESTS, "seconds": 1.0, "timeout_s": 10.0, **plan}
    done = subprocess.run([sys.executable, LOAD], input=json.dumps(plan), capture_output=True, check=True, text=True)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.parametrize("connections", [2, 200])
def test_latency_includes_the_wait_while_the_server_stalls(connections: int) -> None:
    arrivals_s: list[float] = []

    def answer(data: bytes, turn: int) -> bytes:
        arrivals_s.append(time.monotonic())
        since_first_s = arrivals_s[-1] - arrivals_s[0]
        if 1.0 < since_first_s < 1.5:
            time.sleep(1.5 - since_first_s)
        return make_ok_response(b"x")

    with serve(answer) as port:
        result = run(port, rate=100, seconds=3.0, seed=7, connections=connections)
    assert len(result["latencies_s"]) == 300
    assert result["errors"] == {}
    # Half a second of 100 requests a second; if requests waited to be sent, only two would be late, one a connection.
    late = [latency for latency in result["latencies_s"] if latency > 0.1]
    assert len(late) > 20
    assert max(late) > 0.4
    assert result["connections"] <= connections


def test_clients_send_in_order_and_wait_for_answers() -> None:
    seen: list[bytes] = []
    under_way: list[int] = []
    most: list[int] = []

    def answer(data: bytes, turn: int) -> bytes:
        under_way.append(1)
        most.append(len(under_way))
        seen.append(data[-1:])
        time.sleep(0.005)
        under_way.pop()
        return make_ok_response(data[-1:])

    with serve(answer) as port:
        one = run(port, clients=1, seconds=1.0, min_answers=4)
        assert max(most) == 1
        assert seen == [b"%d" % (index % 4) for index in range(len(seen))]
        assert one["bodies"] == {str(index): [str(index)] for index in range(4)}
        assert one["answered"] == len(seen)
        run(port, clients=8, seconds=1.0, min_answers=8)
        assert 1 < max(most) <= 8


def test_errors_are_counted_by_kind_without_latencies() -> None:
    def answer(data: bytes, turn: int) -> bytes | None:
        time.sleep(0.002)
        return {
            b"0": make_ok_response(b"x"),
            b"1": make_ok_response(b"no", b"503 Service Unavailable"),
            b"2": None,
            b"3": make_ok_response(b"y"),
        }[data[-1:]]

    with serve(answer) as port:
        result = run(port, clients=1, seconds=0.5)
    assert set(result["errors"]) == {"HTTP 503", "connection closed"}
    assert set(result["bodies"]) == {"0", "3"}
    assert abs(len(result["latencies_s"]) - 2 * result["errors"]["HTTP 503"]) <= 2


def test_a_connection_closed_between_requests_loses_no_answer() -> None:
    def answer(data: bytes, turn: int) -> bytes | None:
        return make_ok_response(b"x") if turn < 3 else None

    with serve(answer) as port:
        result = run(port, clients=2, seconds=0.3)
    assert result["errors"] == {}
    assert result["reopened"] > 3


def test_answers_in_chunks_and_in_pieces_are_read_whole() -> None:
    body = b'{"label": "World"}' * 5000  # more than one segment
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"

    with serve(lambda data, turn: chunked if data[-1:] in b"02" else make_ok_response(body)) as port:
        result = run(port, clients=2, seconds=0.3)
    assert result["errors"] == {}
    assert result["bodies"] == {"0": ["hello!"], "1": [body.decode()], "2": ["hello!"], "3": [body.decode()]}


def test_a_request_that_is_never_answered_is_an_error() -> None:
    def answer(data: bytes, turn: int) -> bytes:
        return b"" if data[-1:] == b"1" else make_ok_response(b"x")

    with serve(answer) as port:
        result = run(port, rate=20, seconds=1.0, timeout_s=1.0)
    assert result["errors"] == {"no answer in 1 s": 5}
    assert len(result["latencies_s"]) == 15
