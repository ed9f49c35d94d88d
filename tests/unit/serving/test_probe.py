"""The health probe: fails unless the model answers as a model does, with the reason in one line."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from newsbert.errors import ServingError
from newsbert.serving import auth, probe
from newsbert.serving.protocol import SERVED_NAME

GOOD = json.dumps({"label": "World", "score": 0.9, "probabilities": {"World": 0.9, "Sports": 0.1}}).encode()


@contextlib.contextmanager
def _serve(status: int = 200, body: bytes = GOOD, pause_s: float = 0) -> Iterator[tuple[int, list[str | None]]]:
    """A server that sends an answer, a byte every `pause_s`; its port and the tokens of its requests."""
    shown: list[str | None] = []
    ended = threading.Event()

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == probe.PREDICTIONS
            self.rfile.read(int(self.headers["Content-Length"]))
            shown.append(self.headers["Authorization"])
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                for position in range(len(body)) if pause_s else []:
                    self.wfile.write(body[position : position + 1])
                    if ended.wait(pause_s):
                        return
                if not pause_s:
                    self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1], shown
        finally:
            ended.set()
            server.shutdown()
            thread.join()


def _run(port: int, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "newsbert.serving.probe", str(port)],
        env={**os.environ, "NEWSBERT_SERVE_PORT": "9", **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_probe_requests_the_served_model() -> None:
    assert f"/predictions/{SERVED_NAME}" == probe.PREDICTIONS


def test_a_model_that_answers_is_healthy() -> None:
    with _serve() as (port, shown):
        done = _run(port)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert _run(port, NEWSBERT_TOKEN="s3cret").returncode == 0
    assert shown == [None, "Bearer s3cret"]


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (503, b'{"code": 503,\n "message": "no worker"}', '503 {"code": 503, "message": "no worker"}'),
        (500, b"", "500"),
        (200, b"", "no newsbert model"),
        (200, b"Healthy", "no newsbert model"),
        (200, b'{"status": "Healthy"}', "no newsbert model"),
        (200, b'{"label": "World", "probabilities": {}}', "no newsbert model"),
        (200, b'{"label": "World", "probabilities": 1}', "no newsbert model"),
        (200, b'[{"label": "World"}]', "no newsbert model"),
    ],
)
def test_any_other_answer_is_unhealthy(status: int, body: bytes, message: str) -> None:
    with _serve(status, body) as (port, _):
        done = _run(port)
    assert done.returncode == 1
    assert message in done.stdout
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_no_listener_is_unhealthy() -> None:
    done = _run(9)
    assert done.returncode == 1
    assert "refused" in done.stdout


@pytest.mark.parametrize("pause_s", [0.5, 60])
def test_a_slow_answer_times_out(pause_s: float) -> None:
    with _serve(pause_s=pause_s) as (port, _):
        started = time.monotonic()
        done = _run(port)
    assert done.returncode == 1
    assert time.monotonic() - started < 30
    assert done.stdout.count("\n") == 1


def test_a_missing_key_file_is_named(tmp_path: os.PathLike[str]) -> None:
    done = _run(9, NEWSBERT_KEY_FILE=f"{tmp_path}/key_file.json")
    assert done.returncode == 1
    assert "key_file.json cannot be read" in done.stdout


def test_an_invalid_token_is_an_error() -> None:
    done = _run(9, NEWSBERT_TOKEN="tökén")
    assert done.returncode == 1
    assert "the token holds what no HTTP header can" in done.stdout


def test_the_probe_imports_only_what_it_needs() -> None:
    code = (
        "import sys, newsbert.serving.probe\n"
        "print(*(m for m in ('numpy', 'onnxruntime', 'typer', 'rich', 'httpx2') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("content", ["", "{", "[]", "5", '{"inference": {"key": "k"}}', '{"API": 1, "inference": 2}'])
def test_a_broken_key_file_is_named(tmp_path: "os.PathLike[str]", content: str) -> None:
    from pathlib import Path

    file = Path(tmp_path) / "key_file.json"
    file.write_text(content)
    with pytest.raises(ServingError, match="is no key file"):
        auth.read(file)
