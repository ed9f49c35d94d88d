"""`newsbert predict --url` and the client, with a server of a few lines."""

import contextlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from newsbert.bundle.bundle import Bundle
from newsbert.errors import BadRequestError, ServingError
from newsbert.inference.model import Model
from newsbert.serving.client import CHUNK_ITEMS, Client
from tests.support.calls import expected, failed, free_port
from tests.support.cli import Cli


class _Server:
    """A real HTTP server that answers as configured, and records its requests.

    Args:
        model: Answers the texts; where there is none, every request gets `status`, `body`.
    """

    def __init__(self, model: Model | None = None, status: int = 200, body: bytes = b"") -> None:
        self.requests: list[tuple[str, Any]] = []
        requests = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                value = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                requests.append((self.path, value))
                answer = body
                if model is not None:
                    answer = json.dumps(
                        [prediction.to_dict() for prediction in model.predict(value["instances"])]
                    ).encode()
                self.send_response(status)
                self.send_header("X-Newsbert-Model", "Mod%C3%A8le/3")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"


@contextlib.contextmanager
def _serve(model: Model | None = None, status: int = 200, body: bytes = b"") -> Iterator[_Server]:
    server = _Server(model, status, body)
    thread = threading.Thread(target=server.http.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()


@pytest.fixture
def served(bundle: Bundle) -> Iterator[_Server]:
    """A server of the tiny model."""
    with _serve(Model.from_directory(bundle.path)) as server:
        yield server


def test_with_a_url_the_server_classifies(cli: Cli, bundle: Bundle, served: _Server) -> None:
    result = cli("predict", "--url", served.url, "--json", "goal", "bank profit")
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout) == {
        "model": "Modèle/3",
        "predictions": expected(bundle, ["goal", "bank profit"]),
    }
    ((path, body),) = served.requests
    assert path == "/predictions/news_classification"
    assert sorted(body["instances"]) == ["bank profit", "goal"]


def test_many_texts_are_sent_in_chunks_in_order(bundle: Bundle, served: _Server) -> None:
    texts = [f"goal {number}" for number in range(2 * CHUNK_ITEMS + 1)]
    client = Client(served.url.removeprefix("http://"))
    predictions = client.predict([*texts[:-1], {"title": "goal", "text": texts[-1].partition(" ")[2]}])
    assert [len(value["instances"]) for _, value in served.requests] == [CHUNK_ITEMS, CHUNK_ITEMS, 1]
    expected = Model.from_directory(bundle.path).predict(texts)
    for one, other in zip(predictions, expected, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-3)
    assert client.name == "Modèle/3"
    assert client.predict([]) == []


def test_the_runtime_option_selects_the_runtime(cli: Cli, bundle: Bundle) -> None:
    local = cli("predict", "--model", bundle.path, "--runtime", "onnxruntime", "stocks market", "--json")
    expected = Model.from_directory(bundle.path, runtime="torch").predict(["stocks market"])
    assert json.loads(local.stdout)["predictions"][0]["probabilities"] == pytest.approx(
        expected[0].probabilities, abs=1e-3
    )
    refused = cli("predict", "--model", bundle.path, "--runtime", "tensorrt", "stocks market")
    assert refused.returncode == 2
    assert "no runtime 'tensorrt'" in refused.stderr
    assert cli("predict", "--url", "http://127.0.0.1:1", "--runtime", "torch", "stocks").returncode == 2


def test_rows_of_a_file_are_classified_by_a_server(cli: Cli, bundle: Bundle, served: _Server, tmp_path: Path) -> None:
    texts = [f"goal {'bank ' * (number % 7)}{number}" for number in range(300)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    result = cli("predict", "--url", served.url, "--file", "in.jsonl", "--output", "out.jsonl", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["model"] == "Modèle/3"
    expected = Model.from_directory(bundle.path).predict(texts)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["text"] for row in rows] == texts
    for row, prediction in zip(rows, expected, strict=True):
        assert row["probabilities"] == pytest.approx(prediction.probabilities, abs=1e-3)
    sizes = [len(value["instances"]) for _, value in served.requests]
    assert (sizes[0], sum(sizes), max(sizes)) == (1, 301, 64)  # the first request is for the model's name


def test_a_predictions_url_is_used_unchanged(served: _Server) -> None:
    Client(f"{served.url}/predictions/other/1.0").predict(["goal"])
    assert served.requests == [("/predictions/other/1.0", {"instances": ["goal"]})]


@pytest.mark.parametrize("status", [400, 413, 415])
def test_a_refused_request_shows_the_servers_message(cli: Cli, status: int) -> None:
    with _serve(status=status, body=b'{"code": 400, "message": "item 0: no good"}') as server:
        with pytest.raises(BadRequestError, match=rf"\({status}\): item 0: no good"):
            Client(server.url).predict(["goal"])
        if status == 400:
            failed(cli("predict", "--url", server.url, "goal"), 1, "item 0: no good")


@pytest.mark.parametrize(("status", "body"), [(500, b""), (503, b"{}"), (404, b"[]"), (507, b'{"message": "full"}')])
def test_a_server_error_shows_its_code(status: int, body: bytes) -> None:
    with _serve(status=status, body=body) as server, pytest.raises(ServingError, match=f"answered {status}"):
        Client(server.url, retry_s=0).predict(["goal"])


_ANSWER = {"label": "a", "score": 1.0, "probabilities": {"a": 1.0}}


@pytest.mark.parametrize(
    "answer",
    [[], [_ANSWER, _ANSWER], _ANSWER, None, 5, ["a"], [{"label": "a"}], [{**_ANSWER, "score": "x"}],
     [{**_ANSWER, "probabilities": 1}], [{**_ANSWER, "review": "yes"}], [None]],
)  # fmt: skip
def test_an_answer_in_another_form_is_an_error(answer: object) -> None:
    with _serve(body=json.dumps(answer).encode()) as server, pytest.raises(ServingError, match=re.escape(server.url)):
        Client(server.url).predict(["goal"])


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff"])
def test_an_answer_that_is_no_json_is_an_error(body: bytes) -> None:
    with _serve(body=body) as server, pytest.raises(ServingError, match=re.escape(server.url)):
        Client(server.url).predict(["goal"])


@pytest.mark.parametrize(
    "response", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[{"]
)
def test_a_server_without_http_is_an_error(response: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(response)

        thread = threading.Thread(target=answer)
        thread.start()
        port = listener.getsockname()[1]
        with pytest.raises(ServingError, match=f"127.0.0.1:{port}"):
            Client(f"127.0.0.1:{port}", retry_s=0).predict(["goal"])
        thread.join()


@pytest.mark.parametrize("url", ["", "http://", "http://127.0.0.1:abc", "http://[::1", "nonsense://x", "http://a b"])
def test_an_invalid_url_is_an_error(url: str) -> None:
    with pytest.raises(ServingError):
        Client(url).predict(["goal"])


def test_no_server_at_a_url_exits_1(cli: Cli) -> None:
    failed(cli("predict", "--url", f"http://127.0.0.1:{free_port()}", "goal"), 1, "no model server answers")


def test_an_empty_url_is_an_error(cli: Cli) -> None:
    failed(cli("predict", "--url", "", "goal"), 1, "no model server answers")
