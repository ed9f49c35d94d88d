"""What an operator sees of a server at work: its metrics, its dashboard, its log."""

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from newsbert.bundle.bundle import Bundle, files_of
from newsbert.core.settings import ServeSettings
from newsbert.inference.runtime import resolve_runtime
from newsbert.serving import archive, metrics_endpoint
from tests.support.cli import Cli
from tests.support.metrics import Page
from tests.support.serving import PATH, Served, Start
from tests.support.tiny_model import LABELS

JSON, TEXT, FORM = "application/json", "text/plain", "application/x-www-form-urlencoded"


def _page(served: Served) -> Page:
    with urllib.request.urlopen(served.ready["metrics"], timeout=20) as response:
        assert response.headers["Content-Type"] == metrics_endpoint.CONTENT_TYPE
        return Page(response.read().decode())


def _post(connection: http.client.HTTPConnection, body: bytes, kind: str, path: str = PATH) -> int:
    connection.request("POST", path, body, {"Content-Type": kind})
    response = connection.getresponse()
    response.read()
    return response.status


@contextlib.contextmanager
def _connected(served: Served) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    try:
        yield connection
    finally:
        connection.close()


@pytest.fixture
def broken(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model's archive, in an environment where its model fails at `fail`, and ends its worker at `end`."""
    patch = tmp_path / "patch"
    patch.mkdir()
    (patch / "sitecustomize.py").write_text("""
import os

from newsbert.inference.runtime import Runtime

_predict = Runtime.predict_prepared


def _fail(self, sequences, *others, **options):
    if "end" in sequences:
        os._exit(3)
    if "fail" in sequences:
        raise RuntimeError("no\\nanswer")
    return _predict(self, sequences, *others, **options)


Runtime.predict_prepared = _fail
""")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(patch), os.environ.get("PYTHONPATH")])))
    return archive.write(bundle, tmp_path / "broken", "Broken/1", ServeSettings(batch_size=4))


# Metrics


def test_requests_are_counted(start: Start) -> None:
    served = start("--review-threshold", "1", "--cascade", "off")
    before = _page(served)
    with _connected(served) as connection:
        assert _post(connection, b"goal team", TEXT) == 200
        assert _post(connection, json.dumps({"instances": ["goal team cup", "bank"]}).encode(), JSON) == 200
        assert _post(connection, b"{", JSON) == 400
        assert _post(connection, b"x", "image/png") == 415
        assert _post(connection, json.dumps({"instances": ["x"] * 1001}).encode(), JSON) == 413
        assert _post(connection, b"x", TEXT, "/predictions/nobody") == 404
    after = _page(served)

    def more(name: str, **labels: str) -> float:
        return after.get(name, **labels) - before.get(name, **labels)

    counts = {status: more("newsbert_requests_total", status=str(status)) for status in (200, 400, 413, 415, 500, 503)}
    assert counts == {200: 2, 400: 1, 413: 1, 415: 1, 500: 0, 503: 0}
    assert sum(more("newsbert_predictions_total", label=label) for label in LABELS) == 3
    assert more("newsbert_predictions_total") == more("newsbert_reviews_total") == 3
    assert more("newsbert_tiers_total", tier="model") == more("newsbert_tiers_total") == 3
    assert more("newsbert_confidence_ratio_count") == more("newsbert_document_tokens_count") == 3
    assert 1.0 <= more("newsbert_confidence_ratio_sum") <= 3.0
    # [CLS] and [SEP] of each text, and six words that the vocabulary has.
    assert more("newsbert_document_tokens_sum") == 3 * 2 + 6
    assert more("newsbert_batch_requests_sum") == 5
    assert more("newsbert_model_seconds_count") == more("newsbert_tokenizer_seconds_count") == 2
    assert 0 < more("newsbert_tokenizer_seconds_sum") + more("newsbert_model_seconds_sum") < 10
    assert after.get("newsbert_workers") == after.get("newsbert_worker_starts_total") == 1
    # TorchServe's own: all that it answered, and how long requests waited.
    assert more("Requests4XX") == 4
    assert more("Requests2XX") >= 2
    assert more("ts_inference_requests_total") == 5
    assert more("ts_queue_latency_microseconds") > 0
    assert more("QueueTime_count") == 5
    assert served.stop() == 0


def test_counters_survive_workers(start: Start) -> None:
    served = start("--workers", "2")
    deadline = time.monotonic() + 60
    # It is ready as soon as one of them answers.
    while _page(served).get("newsbert_workers") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with _connected(served) as connection:
        for _ in range(8):
            assert _post(connection, b"goal", TEXT) == 200
    before = _page(served)
    served.worker().kill()
    deadline = time.monotonic() + 60
    while (now := _page(served)).get("newsbert_worker_starts_total") < 3:
        assert now.get("newsbert_requests_total", status="200") >= before.get("newsbert_requests_total", status="200")
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert now.get("newsbert_workers") == 2
    assert now.get("newsbert_predictions_total") >= before.get("newsbert_predictions_total") >= 8
    assert served.stop() == 0


def test_metrics_have_a_port_of_their_own_and_need_no_token(start: Start, bundle: Bundle, cli: Cli) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    served = start("--metrics-port", port, "--token-auth")
    assert served.ready["metrics"] == f"http://127.0.0.1:{port}/metrics"
    assert served.ask() == 400
    page = _page(served)
    for path, method, status in (("/", "GET", 404), ("/metrics", "POST", 501), ("/predictions", "GET", 404)):
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=20)
        caught.value.close()
        assert caught.value.code == status
    assert page.get("newsbert_requests_total") >= 1
    taken = cli("serve", "locally", bundle.path, "--port", "0", "--metrics-port", port)
    assert taken.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in taken.stderr
    assert served.stop() == 0
    same = cli("serve", "locally", bundle.path, "--port", port, "--metrics-port", port)
    assert same.returncode == 2
    assert f"port {port} cannot be for metrics too" in same.stderr


def test_open_connections_do_not_stop_the_server(start: Start) -> None:
    served = start()
    address = "127.0.0.1", int(served.ready["metrics"].split(":")[2].split("/")[0])
    supervisor = psutil.Process(served.process.pid)
    before = supervisor.num_threads()
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(socket.create_connection(address, 5))
        time.sleep(0.5)
        assert before < supervisor.num_threads() < 20
        assert served.ask() == 200
    deadline = time.monotonic() + 10
    while supervisor.num_threads() > before:  # every thread has to see that its connection is closed
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert _page(served).get("newsbert_workers") == 1
    assert served.log.read_text() == "starting …\n"


# The dashboard


def test_the_dashboard_shows_what_there_is(start: Start, broken: Path, cli: Cli) -> None:
    board = json.loads(cli("export", "dashboard").stdout)
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= set(board)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids) > 10
    boxes: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        assert panel["type"] in {"stat", "timeseries", "heatmap"}
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & boxes
        boxes |= cells
        assert {x for x, _ in cells} <= set(range(24))
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["targets"]
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    used = {name for expression in expressions for name in re.findall(r"(\w+)\{", expression)}
    variables = [variable["definition"] for variable in board["templating"]["list"] if variable["type"] == "query"]
    used |= {name for variable in variables for name in re.findall(r"\((\w+),", variable)}

    served = start(model=broken)
    with _connected(served) as connection:
        for body, status in ((b"goal", 200), (b"", 400), (b"fail", 500)):
            assert _post(connection, body, TEXT) == status
    page = _page(served)
    assert used <= page.names
    # And all that newsbert counts is to be seen.
    shown = {re.sub("_(bucket|sum|count)$", "", name) for name in used}
    assert {name for name in page.types if name.startswith("newsbert_")} <= shown


def test_prometheus_can_read_the_dashboard_s_expressions(tmp_path: Path, cli: Cli) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("there is no promtool on this machine (Debian's package prometheus)")
    board = json.loads(cli("export", "dashboard").stdout)
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    rules = [
        {"record": f"rule:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(expressions)
    ]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "board", "rules": rules}]}))
    done = subprocess.run(
        [promtool, "check", "rules", "rules.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# The log


def test_a_thousand_requests_good_and_bad_log_nothing(start: Start) -> None:
    served = start()
    requests = [
        (b"goal", TEXT, PATH, 200), (json.dumps({"instances": ["a", "b"]}).encode(), JSON, PATH, 200),
        (b"", TEXT, PATH, 400), (b"{", JSON, PATH, 400), (b"\xff", TEXT, PATH, 400), (b"x", "image/png", PATH, 415),
        (b"x", TEXT, "/predictions/nobody", 404), (b"x", TEXT, "/nothing", 404), (b"%zz=", FORM, PATH, 500),
        (b"x", TEXT, "/predictions/%zz", 403),
    ]  # fmt: skip
    with _connected(served) as connection:
        for number in range(1000):
            body, kind, path, status = requests[number % len(requests)]
            assert _post(connection, body, kind, path) == status
    for broken_off in range(20):  # and clients that go away
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", served.port), 5) as gone:
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            gone.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {broken_off}\r\n\r\nx".encode())
    time.sleep(1)
    assert served.log.read_text() == "starting …\n"
    assert served.stop() == 0
    assert served.log.read_text() == "starting …\nstopped\n"


def _problems(served: Served) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in served.log.read_text().splitlines()]
    return [record for record in records if record["level"] != "INFO"]


def _wait_for_problem(served: Served, event: str) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while True:
        for problem in _problems(served):
            if problem["event"] == event:
                return problem
        assert time.monotonic() < deadline, served.log.read_text()
        time.sleep(0.1)


def test_a_problem_is_one_line(start: Start, broken: Path) -> None:
    served = start("--log-format", "json", model=broken)
    assert _problems(served) == []
    with _connected(served) as connection:
        assert _post(connection, b"fail", TEXT) == 500
        failed = _wait_for_problem(served, "prediction-failed")
        assert failed["message"] == "RuntimeError: no\nanswer"
        assert failed["requests"] == 1
        assert failed["worker"] == "W-9000-news_classification_1.0"
        assert 'raise RuntimeError("no' in failed["traceback"]
        assert _page(served).get("newsbert_requests_total", status="500") == 1
        assert _post(connection, b"goal", TEXT) == 200
        assert _post(connection, b"end", TEXT) == 500
    died = _wait_for_problem(served, "worker-died")
    assert died["level"] == "ERROR"
    assert died["worker"] == "9000"
    deadline = time.monotonic() + 20
    while served.ask() != 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert [problem["event"] for problem in _problems(served)] == ["prediction-failed", "worker-died"]
    assert served.stop() == 0


def test_problems_are_lines_for_people_by_default(start: Start, broken: Path) -> None:
    served = start(model=broken)
    with _connected(served) as connection:
        assert _post(connection, b"fail", TEXT) == 500
    deadline = time.monotonic() + 20
    while "prediction-failed" not in (log := served.log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    _, line = log.splitlines()
    assert re.fullmatch(r"\S+Z ERROR prediction-failed: RuntimeError: no answer worker=\S+ requests=1", line)


def test_a_model_that_does_not_load_is_one_line_and_an_error(bundle: Bundle, tmp_path: Path, cli: Cli) -> None:
    made = archive.write(bundle, tmp_path / "store", "Broken/1", ServeSettings())
    with zipfile.ZipFile(made) as content:
        files = {name: content.read(name) for name in content.namelist()}
    graph = files_of(resolve_runtime(bundle))[0]
    files[graph] = b"no graph"
    with zipfile.ZipFile(made, "w") as content:
        for name, held in files.items():
            content.writestr(name, held)
    done = cli("serve", "locally", made, "--port", "0", "--log-format", "json")
    assert done.returncode == 1
    assert done.stdout == ""
    records = [json.loads(line) for line in done.stderr.splitlines()]
    assert [record["event"] for record in records] == ["log", "worker-failed", "serving"]
    assert "altered" in records[1]["message"] or graph in records[1]["message"]
    assert records[2]["message"].startswith("the model cannot be loaded")
    people = cli("serve", "locally", made, "--port", "0")
    assert len(people.stderr.splitlines()) == 4, people.stderr  # starting, the problem, the error, the hint
