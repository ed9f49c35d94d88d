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


def _answer(status: int, document: object = None, headers: str = "", promised: int = 0) -> bytes:
    body = json.dumps([_PREDICTION] if status == 200 else document or {}).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body) + promised}\r\nConnection: close\r\n{headers}\r\n"
    return head.encode() + body


GOOD = _answer(200)
BUSY = _answer(503, {"code": 503, "type": "ServiceUnavailableException", "message": "no worker"})
DIED = _answer(500, {"code": 500, "type": "InternalServerException", "message": "Worker died."})
KILLED = _answer(507, {"code": 507, "type": "InternalServerException", "message": "Worker died."})
LOST = b""
CUT = _answer(200, promised=100)


class _Server:
    """A socket that gives one answer after the other, one a connection, and then closes."""

    def __init__(self, answers: list[bytes]) -> None:
        self.num_requests = 0
        self._answers = answers
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        with self._listener:
            for answer in self._answers:
                connection, _ = self._listener.accept()
                with connection:
                    data = b""
                    while b"instances" not in data:
                        data += connection.recv(65536)
                    self.num_requests += 1
                    connection.sendall(answer)


@contextlib.contextmanager
def _serving(*answers: bytes) -> Iterator[_Server]:
    server = _Server(list(answers))
    yield server
    server.thread.join(20)


@pytest.mark.parametrize("failure", [BUSY, DIED, KILLED, LOST, CUT], ids=["busy", "died", "killed", "lost", "cut"])
def test_a_transient_failure_is_retried(failure: bytes) -> None:
    with _serving(failure, failure, GOOD) as server:
        assert [prediction.label for prediction in Client(server.url).predict(["goal"])] == ["a"]
    assert server.num_requests == 3


def test_only_failed_chunks_are_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CHUNK_ITEMS", 1)
    with _serving(GOOD, BUSY, GOOD, GOOD) as server:
        assert len(Client(server.url).predict(["goal", "cup", "team"])) == 3
    assert server.num_requests == 4


@pytest.mark.parametrize("status", [400, 401, 404, 413, 415, 429])
def test_a_refusal_is_not_retried(status: int) -> None:
    refused = _answer(status, {"code": status, "type": "X", "message": "no"}, "Retry-After: 0\r\n")
    with _serving(refused) as server, pytest.raises((BadRequestError, ServingError)) as caught:
        Client(server.url).predict(["goal"])
    assert server.num_requests == 1
    assert "tried" not in caught.value.message


def test_a_failure_of_the_model_is_not_retried() -> None:
    failed = _answer(500, {"code": 500, "type": "InternalServerError", "message": "the model failed"})
    with _serving(failed) as server, pytest.raises(ServingError, match=r"answered 500: the model failed$"):
        Client(server.url).predict(["goal"])
    assert server.num_requests == 1


def test_the_error_after_retries_has_their_number() -> None:
    with _serving(*[BUSY] * 4) as server, pytest.raises(ServingError, match=r"(tried \d+ times in \d+ s)"):
        Client(server.url, retry_s=1.2).predict(["goal"])  # at least 0.05, 0.1, 0.2, 0.4 s between them; then refused


def test_retry_after_is_respected() -> None:
    with _serving(_answer(503, {}, "Retry-After: 1\r\n"), GOOD) as server:
        started = time.monotonic()
        Client(server.url).predict(["goal"])
        assert time.monotonic() - started >= 1


@pytest.mark.parametrize("after", ["3600", "Wed, 01 Jan 2200 00:00:00 GMT"])
def test_a_long_retry_after_is_an_error_at_once(after: str) -> None:
    with (
        _serving(_answer(503, {}, f"Retry-After: {after}\r\n")) as server,
        pytest.raises(ServingError, match="answered 503"),
    ):
        Client(server.url).predict(["goal"])
    assert server.num_requests == 1


@pytest.mark.parametrize("after", ["-1", "soon", "²", "Wed, 99 Jan 2200", "", "Wed, 01 Jan 2020 00:00:00 GMT"])
def test_an_invalid_retry_after_is_ignored(after: str) -> None:
    with _serving(_answer(503, {}, f"Retry-After: {after}\r\n"), GOOD) as server:
        assert len(Client(server.url).predict(["goal"])) == 1


def test_a_lost_connection_is_retried_and_a_refused_one_is_not() -> None:
    with _serving(LOST) as server, pytest.raises(ServingError, match=r"no model server answers .*\(tried \d+ times in"):
        Client(server.url, retry_s=1).predict(["goal"])
    with pytest.raises(ServingError, match=r"refused$"):
        Client(server.url).predict(["goal"])
