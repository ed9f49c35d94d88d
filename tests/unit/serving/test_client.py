"""A client whose server fails for a while: its retries, their time, and the error at the end."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from newsbert.errors import BadRequestError, ServingError
from newsbert.serving import client
from newsbert.serving.client import Client

_PREDICTION = {"label": "a", "score": 1.0, "probabilities": {"a": 1.0}}


def _make_response(
    status: int, document: object = None, headers: str = "Connection: close\r\n", promised: int = 0
) -> bytes:
    body = json.dumps([_PREDICTION] if status == 200 else document or {}).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body) + promised}\r\n{headers}\r\n"
    return head.encode() + body


GOOD = _make_response(200)
BUSY = _make_response(503, {"code": 503, "type": "ServiceUnavailableException", "message": "no worker"})
DIED = _make_response(500, {"code": 500, "type": "InternalServerException", "message": "Worker died."})
KILLED = _make_response(507, {"code": 507, "type": "InternalServerException", "message": "Worker died."})
LOST = b""
PERSISTENT = _make_response(200, headers="")
CUT = _make_response(200, promised=100)


class _Server:
    """A socket that gives one answer after the other, a number of them per connection, and then closes."""

    def __init__(self, answers: list[bytes], answers_per_connection: int) -> None:
        self.num_requests = 0
        self._per_connection = answers_per_connection
        self._answers = answers
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        with self._listener:
            while self._answers:
                connection, _ = self._listener.accept()
                with connection:
                    for _ in range(self._per_connection):
                        data = b""
                        while b"instances" not in data:
                            data += connection.recv(65536)
                        self.num_requests += 1
                        connection.sendall(self._answers.pop(0))


@contextlib.contextmanager
def _serve(*answers: bytes, answers_per_connection: int = 1) -> Iterator[_Server]:
    server = _Server(list(answers), answers_per_connection)
    yield server
    server.thread.join(20)


@pytest.mark.parametrize("failure", [BUSY, DIED, KILLED, LOST, CUT], ids=["busy", "died", "killed", "lost", "cut"])
def test_a_transient_failure_is_retried(failure: bytes) -> None:
    with _serve(failure, failure, GOOD) as server:
        assert [prediction.label for prediction in Client(server.url).predict(["goal"])] == ["a"]
    assert server.num_requests == 3


def test_only_failed_chunks_are_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CHUNK_ITEMS", 1)
    with _serve(GOOD, BUSY, GOOD, GOOD) as server:
        assert len(Client(server.url).predict(["goal", "cup", "team"])) == 3
    assert server.num_requests == 4


@pytest.mark.parametrize("status", [400, 401, 404, 413, 415, 429])
def test_a_refusal_is_not_retried(status: int) -> None:
    refused = _make_response(status, {"code": status, "type": "X", "message": "no"}, "Retry-After: 0\r\n")
    with _serve(refused) as server, pytest.raises((BadRequestError, ServingError)) as caught:
        Client(server.url).predict(["goal"])
    assert server.num_requests == 1
    assert "tried" not in caught.value.message


def test_a_failure_of_the_model_is_not_retried() -> None:
    failed = _make_response(500, {"code": 500, "type": "InternalServerError", "message": "the model failed"})
    with _serve(failed) as server, pytest.raises(ServingError, match=r"answered 500: the model failed$"):
        Client(server.url).predict(["goal"])
    assert server.num_requests == 1


def test_the_error_after_retries_has_their_number() -> None:
    with _serve(*[BUSY] * 4) as server, pytest.raises(ServingError, match=r"(tried \d+ times in \d+ s)"):
        Client(server.url, retry_s=1.2).predict(["goal"])  # at least 0.05, 0.1, 0.2, 0.4 s between them; then refused


def test_retry_after_is_respected() -> None:
    with _serve(_make_response(503, {}, "Retry-After: 1\r\n"), GOOD) as server:
        started = time.monotonic()
        Client(server.url).predict(["goal"])
        assert time.monotonic() - started >= 1


@pytest.mark.parametrize("after", ["3600", "Wed, 01 Jan 2200 00:00:00 GMT"])
def test_a_long_retry_after_is_an_error_at_once(after: str) -> None:
    with (
        _serve(_make_response(503, {}, f"Retry-After: {after}\r\n")) as server,
        pytest.raises(ServingError, match="answered 503"),
    ):
        Client(server.url).predict(["goal"])
    assert server.num_requests == 1


@pytest.mark.parametrize("after", ["-1", "soon", "²", "Wed, 99 Jan 2200", "", "Wed, 01 Jan 2020 00:00:00 GMT"])
def test_an_invalid_retry_after_is_ignored(after: str) -> None:
    with _serve(_make_response(503, {}, f"Retry-After: {after}\r\n"), GOOD) as server:
        assert len(Client(server.url).predict(["goal"])) == 1


def test_a_lost_connection_is_retried_and_a_refused_one_is_not() -> None:
    with _serve(LOST) as server, pytest.raises(ServingError, match=r"no model server answers .*\(tried \d+ times in"):
        Client(server.url, retry_s=1).predict(["goal"])
    with pytest.raises(ServingError, match=r"refused$"):
        Client(server.url).predict(["goal"])


def test_a_connection_is_used_again() -> None:
    with _serve(PERSISTENT, PERSISTENT, GOOD, answers_per_connection=3) as server:
        client = Client(server.url)
        for _ in range(3):
            assert len(client.predict(["goal"])) == 1


def test_a_connection_that_the_server_closed_meanwhile_is_replaced() -> None:
    with _serve(PERSISTENT, PERSISTENT) as server:
        client = Client(server.url)
        assert [len(client.predict(["goal"])) for _ in range(2)] == [1, 1]


def test_a_redirect_is_not_followed() -> None:
    with (
        _serve(_make_response(302, headers="Location: http://127.0.0.1:1/\r\n")) as server,
        pytest.raises(ServingError, match="answered 302"),
    ):
        Client(server.url).predict(["goal"])


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:1", "socks5://127.0.0.1:1"])
def test_a_server_on_this_machine_is_reached_without_a_proxy(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setenv("http_proxy", proxy)
    with _serve(GOOD) as server:
        assert len(Client(server.url).predict(["goal"])) == 1
    with pytest.raises(ServingError, match=r"http://model\.invalid"):
        Client("http://model.invalid").predict(["goal"])
