"""The client of TorchServe's interfaces: its tokens, and the errors that it makes of answers."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from newsbert.errors import BadRequestError, NotFoundError, ServingError
from newsbert.serving.torchserve.management import ModelServer


@contextlib.contextmanager
def _serve(status: int, document: Any) -> Iterator[tuple[ModelServer, list[str | None]]]:
    """A server that gives one answer to every request, and the tokens of the requests."""
    tokens: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            tokens.append(self.headers["Authorization"])
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield ModelServer(url, url), tokens
        finally:
            server.shutdown()
            thread.join()


def test_every_interface_gets_its_own_token(monkeypatch: pytest.MonkeyPatch) -> None:
    with _serve(200, [{"label": "a"}]) as (server, tokens):
        server.versions("M")
        monkeypatch.setenv("NEWSBERT_MANAGEMENT_TOKEN", "for-management")
        server.versions("M")
        monkeypatch.setenv("NEWSBERT_TOKEN", "for-inference")
        assert server.predict("M", "1", ["goal"]) == ("", [{"label": "a"}])
    assert tokens == [None, "Bearer for-management", "Bearer for-inference"]


def test_a_missing_model_has_no_versions() -> None:
    with _serve(404, {"code": 404, "type": "ModelNotFoundException", "message": "Model not found: M"}) as (server, _):
        assert server.versions("M") == []
        with pytest.raises(NotFoundError, match="answered 404: Model not found: M"):
            server.describe("M")


def test_a_refused_token_hints_at_the_variable_of_the_interface() -> None:
    document = {"code": 400, "type": "InvalidKeyException", "message": "Token Authorization failed"}
    with _serve(400, document) as (server, _):
        for call, variable in (
            (lambda: server.versions("M"), "NEWSBERT_MANAGEMENT_TOKEN"),
            (lambda: server.predict("M", "", ["goal"]), "NEWSBERT_TOKEN"),
        ):
            with pytest.raises(ServingError, match="Token Authorization failed") as caught:
                call()
            assert f"or {variable}=TOKEN" in (caught.value.hint or "")


def test_only_the_inference_interface_refuses_input() -> None:
    with _serve(400, {"code": 400, "type": "BadRequestException", "message": "the text is empty"}) as (server, _):
        with pytest.raises(BadRequestError, match="the text is empty"):
            server.predict("M", "", [" "])
        with pytest.raises(ServingError, match="the text is empty"):
            server.describe("M")


def test_answers_of_another_model_are_an_error() -> None:
    with _serve(200, [{"label": "a"}]) as (server, _), pytest.raises(ServingError, match="answers in another form"):
        server.predict("M", "", ["goal", "cup"])
