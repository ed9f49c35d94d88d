"""A server whose certificate no public authority has signed, as behind Caddy's own."""

import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.calls import failed
from tests.support.cli import Cli


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET  # noqa: N815 - as `http.server` wants it

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The URL of a server with the certificate `root.crt`."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key", "-out", "root.crt", "-days", "1",
         "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "root.crt", tmp_path / "key")
    http.socket = context.wrap_socket(http.socket, server_side=True)
    thread = threading.Thread(target=http.serve_forever, args=(0.05,))
    thread.start()
    yield f"https://127.0.0.1:{http.server_address[1]}"
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "certificate verify failed"),
        ({"MLFLOW_TRACKING_SERVER_CERT_PATH": "nowhere.crt"}, "No such file"),
        ({"MLFLOW_TRACKING_SERVER_CERT_PATH": "root.crt"}, "404"),
        ({"MLFLOW_TRACKING_INSECURE_TLS": "true"}, "404"),
    ],
)
def test_the_certificate_is_checked_by_mlflows_variables(
    cli: Cli, server: str, environment: dict[str, str], message: str
) -> None:
    result = cli("runs", MLFLOW_TRACKING_URI=server, **environment)
    assert result.returncode == 1
    assert message in result.stderr
    assert ("cannot be reached" in result.stderr) == (message != "404")


@pytest.mark.parametrize(
    ("environment", "reason"), [({}, "certificate verify failed"), ({"SSL_CERT_FILE": "root.crt"}, "404")]
)
def test_the_certificate_of_a_model_server_is_checked(
    cli: Cli, server: str, environment: dict[str, str], reason: str
) -> None:
    failed(cli("predict", "--url", server, "goal", **environment), 1, reason)
