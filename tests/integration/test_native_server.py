"""The native server at work: its limits, its workers, its tokens, TLS, and the Open Inference Protocol."""

import collections
import contextlib
import http.client
import json
import signal
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from newsbert.bundle.bundle import Bundle
from newsbert.inference.model import Model
from tests.support import processes
from tests.support.calls import failed
from tests.support.cli import Cli
from tests.support.metrics import Page
from tests.support.serving import PATH, Served, Start

TEXT = b"goal team cup"


@pytest.fixture
def serve(start: Start) -> Callable[..., Served]:
    """Serve the tiny model with the native server."""
    return lambda *arguments, **options: start("--server", "native", *arguments, **options)


def _post(served: Served, body: bytes = TEXT, path: str = PATH, **headers: str) -> tuple[int, dict[str, str], Any]:
    """Return the status, headers and JSON of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    with contextlib.closing(connection):
        connection.request("POST", path, body, {"Content-Type": "text/plain", **headers})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, json.load(response)


def _list_workers(served: Served) -> list[psutil.Process]:
    return processes.with_command("newsbert.serving.native.worker", processes.children(served.process.pid))


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _ping(connection: socket.socket) -> None:
    """Send a request on a connection, and read all of its answer."""
    connection.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = b""
    while not answer.endswith(b'"Healthy"}'):
        part = connection.recv(65536)
        assert part
        answer += part


def _is_closed(connection: socket.socket) -> bool:
    """Return whether the server has closed a connection without an answer; wait until it does something."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


# Its interface


def test_it_answers_as_the_model_does(serve: Callable[..., Served], bundle: Bundle) -> None:
    served = serve()
    model = Model.from_directory(bundle.path)
    (prediction,) = model.predict([TEXT.decode()])
    status, headers, answer = _post(served)
    assert (status, headers["x-newsbert-model"]) == (200, served.ready["model"])
    assert answer["label"] == prediction.label
    assert answer["probabilities"] == pytest.approx(prediction.probabilities, abs=1e-3)
    assert served.ready["grpc"] is None
    assert served.stop() == 0


def test_health_is_for_load_balancers(serve: Callable[..., Served]) -> None:
    served = serve()
    for path in ("/ping", "/v2/health/live", "/v2/health/ready", "/v2/models/news_classification/ready"):
        with urllib.request.urlopen(served.url + path, timeout=30) as response:
            assert response.status == 200
    with urllib.request.urlopen(f"{served.url}/openapi.json", timeout=30) as response:
        assert "/predictions/news_classification" in json.load(response)["paths"]


def test_other_paths_and_methods_are_refused(serve: Callable[..., Served]) -> None:
    served = serve()
    for path, status in (("/", 404), ("/predictions/other", 404), ("/ping", 405), ("/v2/models/other/infer", 404)):
        assert _post(served, path=path)[0] == status
    assert _post(served, path="/ping")[1]["allow"] == "GET, HEAD"


def test_pages_of_an_origin_may_send_requests(serve: Callable[..., Served]) -> None:
    served = serve("--cors-origin", "https://news.example")
    assert _post(served)[1]["access-control-allow-origin"] == "https://news.example"
    preflight = urllib.request.Request(served.url + PATH, method="OPTIONS")
    with urllib.request.urlopen(preflight, timeout=30) as response:
        assert response.headers["Access-Control-Allow-Methods"] == "GET, POST, OPTIONS"


def test_a_request_to_upgrade_is_answered_as_any_other(serve: Callable[..., Served]) -> None:
    """Java's HTTP client sends its first request so."""
    served = serve()
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    upgrade = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABk"}
    with contextlib.closing(connection):
        for headers in (upgrade, {}):  # the connection is good for more
            connection.request("POST", PATH, TEXT, {"Content-Type": "text/plain", **headers})
            response = connection.getresponse()
            assert (response.status, "label" in json.load(response)) == (200, True)


# Its limits


def test_clients_that_send_slowly_are_closed(serve: Callable[..., Served]) -> None:
    served = serve("--header-timeout-s", 0.5, "--body-timeout-s", 0.5)
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n".encode()
    for beginning in (b"", b"POST ", head, head + b"\r\n", head + b"\r\ngoal"):
        with socket.create_connection(("127.0.0.1", served.port), 30) as connection:
            connection.sendall(beginning)
            assert _is_closed(connection)


def test_clients_that_are_idle_are_closed(serve: Callable[..., Served]) -> None:
    served = serve("--keep-alive-s", 0.5)
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    connection.request("GET", "/ping")
    connection.getresponse().read()
    assert _is_closed(connection.sock)
    connection.close()


def test_a_connection_too_many_replaces_the_one_that_is_idle_for_longest(serve: Callable[..., Served]) -> None:
    served = serve("--max-connections", 8)
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(8):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", served.port), 30))
            _ping(connection)
            connections.append(connection)
        assert _post(served)[0] == 200
        assert _is_closed(connections[0])
        _ping(connections[-1])


def test_more_requests_than_may_wait_are_refused_with_a_time(serve: Callable[..., Served]) -> None:
    served = serve("--queue-size", 1)
    body = json.dumps({"instances": ["goal team cup coach " * 20] * 1000}).encode()
    refused: list[dict[str, str]] = []

    def send() -> None:
        status, headers, _ = _post(served, body, **{"Content-Type": "application/json"})
        if status == 503:
            refused.append(headers)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= len(refused) <= 3
    assert {headers["retry-after"] for headers in refused} == {"1"}
    assert all(int(headers["retry-after-ms"]) >= 1 for headers in refused)


def test_a_body_that_is_too_large_is_refused_and_the_client_can_read_that(serve: Callable[..., Served]) -> None:
    served = serve()
    status, headers, answer = _post(served, b"a" * (2 * 1024 * 1024))
    assert (status, headers["connection"]) == (413, "close")
    assert "the body has more than 1048576 bytes" in answer["message"]


# Its end


@pytest.mark.parametrize("keep", [False, True], ids=["a connection a request", "connections kept"])
def test_a_stop_under_load_loses_no_request(serve: Callable[..., Served], keep: bool) -> None:
    served = serve()
    outcomes: collections.Counter[object] = collections.Counter()

    def send_requests() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
        while True:
            if connection.sock is None:
                try:
                    connection.connect()
                except OSError:  # nothing listens any more, and nothing was sent
                    outcomes["refused"] += 1
                    return
            try:
                connection.request("POST", PATH, TEXT, {"Content-Type": "text/plain"})
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException):
                outcomes["lost"] += 1
                return
            outcomes[response.status] += 1
            if not keep:
                connection.close()

    threads = [threading.Thread(target=send_requests) for _ in range(32)]
    for thread in threads:
        thread.start()
    _wait(lambda: outcomes[200] > 100)
    assert served.stop() == 0
    for thread in threads:
        thread.join()
    assert set(outcomes) == {200, "refused"}
    assert outcomes["refused"] == 32


def test_when_it_is_killed_its_workers_end(serve: Callable[..., Served]) -> None:
    served = serve("--workers", 2)
    workers = _list_workers(served)
    assert len(workers) == 2
    served.process.kill()
    assert not psutil.wait_procs(workers, timeout=30)[1]


# Its workers


def test_workers_share_an_address_and_their_metrics_are_summed(serve: Callable[..., Served]) -> None:
    served = serve("--workers", 2)
    for _ in range(20):
        assert served.ask() == 200
    with urllib.request.urlopen(served.ready["metrics"], timeout=20) as response:
        page = Page(response.read().decode())
    assert page.get("newsbert_requests_total", status="200") == 20
    assert page.get("newsbert_workers") == 2
    assert page.get("newsbert_queue_seconds_count") == 20
    assert page.get("newsbert_tokenizer_seconds_count") == 20
    assert page.get("newsbert_batch_requests_sum") == 20


def test_a_killed_worker_is_started_again_and_new_connections_wait_for_it(serve: Callable[..., Served]) -> None:
    served = serve()
    for _ in range(3):
        (worker,) = _list_workers(served)
        worker.kill()
        assert served.ask() == 200
        (other,) = _list_workers(served)
        assert other.pid != worker.pid
    log = served.log.read_text()
    assert "worker-died: worker 0 ended (SIGKILL) and is started again" in log


def test_a_worker_that_hangs_is_replaced(serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWSBERT_SERVE_UNRESPONSIVE_TIMEOUT_S", "5")
    served = serve()
    (worker,) = _list_workers(served)
    worker.send_signal(signal.SIGSTOP)
    _wait(lambda: [process.pid for process in _list_workers(served)] not in ([], [worker.pid]))
    assert served.ask() == 200


def test_a_model_that_changes_meanwhile_is_not_served(
    serve: Callable[..., Served], bundle: Bundle, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in bundle.path.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    served = serve(model=copy)
    contract = json.loads((copy / "newsbert.json").read_text())
    contract["review_threshold"] = 0.123
    (copy / "newsbert.json").write_text(json.dumps(contract))
    (worker,) = _list_workers(served)
    worker.kill()
    assert served.process.wait(60) == 1
    assert "is another one now" in served.log.read_text()


# Tokens and TLS


def test_only_tokens_of_the_file_are_accepted_and_the_file_may_change(
    serve: Callable[..., Served], cli: Cli, tmp_path: Path
) -> None:
    file = tmp_path / "tokens"
    first, second = (cli("serve", "token", "--token-file", file, "--name", name).stdout.strip() for name in "ab")
    assert file.stat().st_mode & 0o077 == 0
    assert first not in file.read_text()
    served = serve("--token-file", file)
    assert (served.ask(), served.ask("wrong"), served.ask(first), served.ask(second)) == (401, 401, 200, 200)
    with urllib.request.urlopen(f"{served.url}/v2/health/ready", timeout=30) as response:
        assert response.status == 200
    assert cli("predict", "--url", served.url, "goal", NEWSBERT_TOKEN=first).returncode == 0
    refused = cli("predict", "--url", served.url, "goal")
    assert (refused.returncode, "wants a token" in refused.stderr) == (1, True)
    lines = file.read_text().splitlines()
    file.write_text(lines[1] + "\n")
    _wait(lambda: served.ask(first) == 401)
    assert served.ask(second) == 200
    file.write_text("nonsense\n")
    _wait(lambda: "expected a name and 'sha256:'" in (served.ask(), served.log.read_text())[1])
    assert served.ask(second) == 200


@pytest.fixture
def certificate(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A certificate of localhost and its key."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    files[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    yield files


def test_it_answers_with_tls(serve: Callable[..., Served], certificate: tuple[Path, Path], cli: Cli) -> None:
    served = serve("--tls-cert", certificate[0], "--tls-key", certificate[1])
    assert served.url.startswith("https://")
    context = ssl.create_default_context(cafile=str(certificate[0]))
    request = urllib.request.Request(served.url + PATH, TEXT, {"Content-Type": "text/plain"})
    with urllib.request.urlopen(request, timeout=30, context=context) as response:
        assert json.load(response)["label"]
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        urllib.request.urlopen(served.url.replace("https", "http") + PATH, timeout=30)
    assert cli("predict", "--url", served.url, "goal", SSL_CERT_FILE=str(certificate[0])).returncode == 0
    assert served.stop() == 0


def test_tls_needs_a_certificate_and_its_key(
    bundle: Bundle, certificate: tuple[Path, Path], cli: Cli, tmp_path: Path
) -> None:
    command = ("serve", "locally", bundle.path, "--server", "native", "--port", "0")
    failed(cli(*command, "--tls-cert", certificate[0]), 2, "--tls-cert and --tls-key go together")
    failed(cli(*command, "--tls-cert", certificate[1], "--tls-key", certificate[0]), 1, "cannot be used")
    failed(cli(*command, "--tls-cert", tmp_path / "none", "--tls-key", certificate[1]), 1, "cannot be used")


# The command line


def test_options_of_the_other_server_are_refused(bundle: Bundle, cli: Cli, tmp_path: Path) -> None:
    command = ("serve", "locally", bundle.path, "--port", "0")
    failed(cli(*command, "--server", "native", "--token-auth"), 2, "token_auth is for TorchServe")
    failed(cli(*command, "--token-file", "tokens"), 2, "TorchServe has no token_file")
    failed(cli(*command, "--tls-cert", "cert.pem"), 2, "TorchServe has no tls_cert")
    failed(cli("serve", "locally", "model.mar", "--server", "native", "--port", "0"), 2, "is an archive of TorchServe")
    failed(cli(*command, "--server", "nginx"), 2, "nginx")


def test_it_is_configured_and_serves_in_the_background(bundle: Bundle, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "newsbert.toml").write_text('server = "native"\n')
    started = cli("serve", "locally", bundle.path, "--detach", "--port", "0", "--json")
    assert started.returncode == 0, started.stderr
    url = json.loads(started.stdout)["url"]
    try:
        assert cli("predict", "--url", url, "goal").returncode == 0
        with urllib.request.urlopen(f"{url}/v2", timeout=30) as response:
            assert json.load(response)["name"] == "newsbert"
        (server,) = json.loads(cli("serve", "status", "--json").stdout)["servers"]
        assert server["url"] == url
    finally:
        assert cli("serve", "stop").returncode == 0


def test_what_it_writes_is_in_its_directory(serve: Callable[..., Served], tmp_path: Path) -> None:
    directory, temporary = tmp_path / "run", tmp_path / "tmp"
    temporary.mkdir()
    served = serve("--run-dir", directory, TMPDIR=str(temporary))
    assert served.ask() == 200
    assert sorted(entry.name for entry in directory.iterdir()) == [
        "metrics",
        "newsbert.lock",
        "ready",
        "worker.json",
    ]
    assert list(temporary.iterdir()) == []
    assert served.stop() == 0
    assert not directory.exists()
