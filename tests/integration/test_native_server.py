"""The native server at work: its limits, its workers, its tokens, TLS, and the Open Inference Protocol."""

import collections
import contextlib
import http.client
import json
import signal
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
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
from tests.support.serving import PATH, SLOW, Served
from tests.support.tracking_servers import wait_until

TEXT = b"goal team cup"


def _post(served: Served, body: bytes = TEXT, path: str = PATH, **headers: str) -> tuple[int, dict[str, str], Any]:
    """Return the status, headers and JSON of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    with contextlib.closing(connection):
        connection.request("POST", path, body, {"Content-Type": "text/plain", **headers})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, json.load(response)


def _list_workers(served: Served) -> list[psutil.Process]:
    return processes.with_command("newsbert.serving.native.worker", processes.children(served.process.pid))


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
        assert "/v2/models/news_classification/infer" in json.load(response)["paths"]
    with urllib.request.urlopen(f"{served.url}/docs", timeout=30) as response:
        page = response.read().decode()
    assert "<h2>POST /v2/models/news_classification/infer</h2>" in page
    assert "CONTENT" not in page


def test_other_paths_and_methods_are_refused(serve: Callable[..., Served]) -> None:
    served = serve()
    for path, status in (("/", 404), ("/predictions/other", 404), ("/ping", 405), ("/v2/models/other/infer", 404)):
        got, _, document = _post(served, path=path)
        assert (got, set(document)) == (status, {"error"} if path.startswith("/v2") else {"code", "type", "message"})
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
    served = serve(*SLOW, "--queue-size", 1)
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
    wait_until(lambda: outcomes[200] > 100)
    assert served.stop() == 0
    for thread in threads:
        thread.join()
    assert set(outcomes) == {200, "refused"}
    assert outcomes["refused"] == 32


def test_a_stop_waits_for_bodies_and_not_for_headers(serve: Callable[..., Served]) -> None:
    served = serve("--header-timeout-s", 600, "--body-timeout-s", 600)
    begun = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: {len(TEXT)}\r\n".encode()
    address = ("127.0.0.1", served.port)
    with socket.create_connection(address, 60) as slow, socket.create_connection(address, 60) as sending:
        for connection in (slow, sending):  # accepted before the stop
            _ping(connection)
        slow.sendall(begun)
        sending.sendall(begun + b"\r\n" + TEXT[:-1])
        served.process.send_signal(signal.SIGTERM)
        assert _is_closed(slow)
        sending.sendall(TEXT[-1:])
        assert sending.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert served.process.wait(60) == 0


def test_when_it_is_killed_its_workers_end(serve: Callable[..., Served]) -> None:
    served = serve("--workers", 2)
    workers = _list_workers(served)
    assert len(workers) == 2
    served.process.kill()
    assert not psutil.wait_procs(workers, timeout=30)[1]


# Its workers


def test_workers_share_an_address_and_their_metrics_are_summed(serve: Callable[..., Served]) -> None:
    served = serve("--workers", 2, "--cascade", "off")
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
    wait_until(lambda: [process.pid for process in _list_workers(served)] not in ([], [worker.pid]))
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


def test_a_worker_that_cannot_start_is_an_error_at_once(bundle: Bundle, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "uvloop.py").write_text("raise ImportError('uvloop is broken')\n")
    command = ("serve", "locally", bundle.path, "--server", "native", "--port", "0", "--timeout-s", 600)
    done = cli(*command, PYTHONPATH=str(tmp_path / "broken"), timeout_s=120)
    failed(done, 1, "a worker ended while it started (exit code 1): ImportError: uvloop is broken")


def test_what_no_parser_foresees_gets_an_answer(serve: Callable[..., Served]) -> None:
    served = serve()
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["goal"]}
    path = "/v2/models/news_classification/infer"
    status, _, answer = _post(served, json.dumps({"id": "\ud800", "inputs": [tensor]}).encode(), path)
    assert (status, answer["id"]) == (200, "\ud800")
    for length in ("\xb2", "9" * 5000, "-1", "1e3", ""):
        status, _, answer = _post(served, b"{}", path, **{"Inference-Header-Content-Length": length})
        assert (status, "error" in answer) == (400, True), length


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
