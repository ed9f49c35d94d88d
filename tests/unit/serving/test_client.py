"""A client whose server fails for a while: what is sent again, how long, and what is told then."""

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
    """A socket that gives one answer after the other, a connection each, and then closes."""

    def __init__(self, answers: list[bytes]) -> None:
        self.asked = 0
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
                    self.asked += 1
                    connection.sendall(answer)


@contextlib.contextmanager
def _serving(*answers: bytes) -> Iterator[_Server]:
    server = _Server(list(answers))
    yield server
    server.thread.join(20)


@pytest.mark.parametrize("failure", [BUSY, DIED, KILLED, LOST, CUT], ids=["busy", "died", "killed", "lost", "cut"])
def test_a_failure_that_passes_is_not_seen(failure: bytes) -> None:
    with _serving(failure, failure, GOOD) as server:
        assert [each.label for each in Client(server.url).predict(["goal"])] == ["a"]
    assert server.asked == 3


def test_only_what_failed_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CHUNK_ITEMS", 1)
    with _serving(GOOD, BUSY, GOOD, GOOD) as server:
        assert len(Client(server.url).predict(["goal", "cup", "team"])) == 3
    assert server.asked == 4


@pytest.mark.parametrize("status", [400, 401, 404, 413, 415, 429])
def test_a_refusal_is_told_at_once(status: int) -> None:
    refused = _answer(status, {"code": status, "type": "X", "message": "no"}, "Retry-After: 0\r\n")
    with _serving(refused) as server, pytest.raises((BadRequestError, ServingError)) as caught:
        Client(server.url).predict(["goal"])
    assert server.asked == 1
    assert "tried" not in caught.value.message


def test_a_model_that_fails_is_told_at_once() -> None:
    failed = _answer(500, {"code": 500, "type": "InternalServerError", "message": "the model failed"})
    with _serving(failed) as server, pytest.raises(ServingError, match=r"answered 500: the model failed$"):
        Client(server.url).predict(["goal"])
    assert server.asked == 1


def test_what_does_not_pass_is_told_with_the_number_of_tries() -> None:
    with _serving(*[BUSY] * 4) as server, pytest.raises(ServingError, match=r"(tried \d+ times in \d+ s)"):
        Client(server.url, retry_s=1.2).predict(["goal"])  # at least 0.05, 0.1, 0.2, 0.4 s between them; then refused


def test_a_server_that_says_how_long_is_given_so_long() -> None:
    with _serving(_answer(503, {}, "Retry-After: 1\r\n"), GOOD) as server:
        started = time.monotonic()
        Client(server.url).predict(["goal"])
        assert time.monotonic() - started >= 1


@pytest.mark.parametrize("after", ["3600", "Wed, 01 Jan 2200 00:00:00 GMT"])
def test_a_wait_that_is_too_long_is_not_begun(after: str) -> None:
    with (
        _serving(_answer(503, {}, f"Retry-After: {after}\r\n")) as server,
        pytest.raises(ServingError, match="answered 503"),
    ):
        Client(server.url).predict(["goal"])
    assert server.asked == 1


@pytest.mark.parametrize("after", ["-1", "soon", "²", "Wed, 99 Jan 2200", "", "Wed, 01 Jan 2020 00:00:00 GMT"])
def test_a_wait_that_is_none_is_passed_over(after: str) -> None:
    with _serving(_answer(503, {}, f"Retry-After: {after}\r\n"), GOOD) as server:
        assert len(Client(server.url).predict(["goal"])) == 1


def test_a_server_that_goes_away_is_waited_for_once_it_has_answered() -> None:
    with _serving(LOST) as server, pytest.raises(ServingError, match=r"no model server answers .*\(tried \d+ times in"):
        Client(server.url, retry_s=1).predict(["goal"])
    with pytest.raises(ServingError, match=r"refused$"):
        Client(server.url).predict(["goal"])
