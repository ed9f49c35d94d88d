"""A serving container: what it may do, how it stops, and who may use it."""

import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

import newsbert
from newsbert.core.settings import ServeSettings
from newsbert.errors import ServingError
from newsbert.images import run
from newsbert.serving.client import Client
from tests.support.cli import Cli
from tests.support.metrics import Page

pytestmark = pytest.mark.engine
LONG_ITEMS = 500
_WORKER = "next(p for p in os.listdir('/proc') if p.isdigit() and b'model_service_worker' in cmdline(p))"
_SIGNAL_WORKER = (
    "import os, pathlib, signal, sys; cmdline = lambda p: pathlib.Path('/proc', p, 'cmdline').read_bytes(); "
    f"os.kill(int({_WORKER}), signal.Signals[sys.argv[1]])"
)


@pytest.fixture
def served(tiny_image: str) -> Iterator[tuple[run.RunningContainer, Any]]:
    """The tiny model's container, as newsbert and as the engine see it; its encoder reads every text."""
    import docker

    with run.serving(tiny_image, ServeSettings(port=0, cascade="off"), threading.Event(), print) as running:
        assert running is not None
        client = docker.from_env()
        yield running, client.containers.get(running.id)
        client.close()


def _ask(url: str, token: str | None = None, content_type: str = "text/plain") -> int:
    headers = {"Content-Type": content_type, **({"Authorization": f"Bearer {token}"} if token else {})}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, b"goal", headers), timeout=20) as done:
            return int(done.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def _wait_until_healthy(container: Any) -> None:
    """Wait until a container's own check has the model answer."""
    deadline = time.monotonic() + 120
    while container.exec_run(["python", "-m", "newsbert.serving.probe"]).exit_code != 0:
        container.reload()
        assert container.status == "running", container.logs().decode()
        assert time.monotonic() < deadline, container.logs().decode()
        time.sleep(0.2)


def test_it_has_no_privilege_and_cannot_write(served: tuple[run.RunningContainer, Any]) -> None:
    _, container = served
    limits = container.attrs["HostConfig"]
    assert limits["ReadonlyRootfs"] is True
    assert limits["CapDrop"] == ["ALL"]
    assert limits["SecurityOpt"] == ["no-new-privileges"]
    assert limits["PidsLimit"] > 0
    assert limits["Privileged"] is False
    assert container.exec_run(["id", "-u"]).output.strip() == b"10001"
    for directory in ("/", "/home/newsbert", "/opt/model", "/opt/newsbert"):
        assert container.exec_run(["touch", f"{directory}/new"]).exit_code == 1
    assert b"noexec" in next(
        line for line in container.exec_run(["cat", "/proc/mounts"]).output.splitlines() if b" /tmp " in line
    )


def test_it_stops_as_process_1_with_its_request_answered(served: tuple[run.RunningContainer, Any]) -> None:
    running, container = served
    answered: list[int] = []
    sent = threading.Event()

    def ask() -> None:
        body = json.dumps({"instances": ["goal team cup coach " * 20] * LONG_ITEMS})
        connection = http.client.HTTPConnection("127.0.0.1", running.address.port, timeout=60)
        path = "/predictions/news_classification"
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        sent.set()
        response = connection.getresponse()
        answered.extend((response.status, len(json.load(response))))
        connection.close()

    thread = threading.Thread(target=ask)
    thread.start()
    assert sent.wait(20)
    # What is sent may be in the engine's proxy still: wait for the answer to a later request.
    with urllib.request.urlopen(f"{running.address.url}/ping", timeout=30):
        pass
    container.stop(timeout=30)
    thread.join(60)
    assert answered == [200, LONG_ITEMS]
    container.reload()
    assert container.attrs["State"]["ExitCode"] == 0
    with pytest.raises(ServingError, match=r"stopped by itself \(exit code 0\)"):
        running.check()


def test_its_health_check_calls_the_model(served: tuple[run.RunningContainer, Any]) -> None:
    _, container = served
    command = container.attrs["Config"]["Healthcheck"]["Test"]
    assert command[0] == "CMD"
    assert container.exec_run(command[1:], environment={"NEWSBERT_SERVE_PORT": "1"}).exit_code == 0
    assert container.exec_run(["python", "-c", _SIGNAL_WORKER, "SIGSTOP"]).exit_code == 0
    failed = container.exec_run(command[1:])
    assert failed.exit_code == 1
    assert b"does not answer" in failed.output
    assert container.exec_run(["python", "-c", _SIGNAL_WORKER, "SIGCONT"]).exit_code == 0


def test_with_tokens_a_command_in_the_container_gets_one(tiny_image: str) -> None:
    import docker

    settings = ServeSettings(port=0, token_auth=True, token_expiry_min=30)
    with run.serving(tiny_image, settings, threading.Event(), print) as running:
        assert running is not None
        assert _ask(running.address.predictions_url) == 400
        client = docker.from_env()
        container = client.containers.get(running.id)
        token = container.exec_run(["newsbert", "serve", "token"], stderr=False).output.decode().strip()
        assert _ask(running.address.predictions_url, token) == 200
        renewed = container.exec_run(["newsbert", "serve", "token", "--renew"], stderr=False).output.decode().strip()
        assert _ask(running.address.predictions_url, token) == 400
        assert _ask(running.address.predictions_url, renewed) == 200
        assert container.exec_run(["python", "-m", "newsbert.serving.probe"]).exit_code == 0
        logs = container.logs().decode()
        assert token not in logs
        assert renewed not in logs
        assert "/tmp/newsbert/key_file.json" in logs
        client.close()


def test_a_container_that_somebody_removed_is_an_error(served: tuple[run.RunningContainer, Any]) -> None:
    running, container = served
    container.remove(force=True)
    with pytest.raises(ServingError, match="somebody removed the container"):
        running.check()


def test_it_is_started_as_torchserves_own_image_is(tiny_image: str) -> None:
    import docker

    client = docker.from_env()
    printed = client.containers.run(tiny_image, ["newsbert", "--version"], remove=True)
    assert printed.decode().strip() == f"newsbert {newsbert.__version__}"
    for command in (["serve"], ["serve", "--review-threshold", "1"], ["--review-threshold", "1"]):
        container = client.containers.run(tiny_image, command, detach=True, read_only=True, tmpfs={"/tmp": ""})
        try:
            _wait_until_healthy(container)
            call = ["newsbert", "predict", "--url", "http://127.0.0.1:8080", "--json", "goal team"]
            answer = json.loads(container.exec_run(call).output)
            assert answer["predictions"][0]["review"] is (len(command) > 1)
        finally:
            container.remove(force=True)
    client.close()


def test_without_a_directory_to_write_to_the_error_names_what_it_needs(tiny_image: str) -> None:
    import docker
    from docker.errors import ContainerError

    client = docker.from_env()
    with pytest.raises(ContainerError) as caught:
        client.containers.run(tiny_image, read_only=True, remove=True)
    assert caught.value.exit_status == 1
    assert b"--tmpfs /tmp" in caught.value.stderr
    assert b"Traceback" not in caught.value.stderr
    client.close()


def test_a_detached_container_is_stopped_by_its_port(tiny_image: str, cli: Cli) -> None:
    done = cli("serve", "container", tiny_image, "--port", "0", "--detach", "--token-auth", "--json")
    assert done.returncode == 0, done.stderr
    server = json.loads(done.stdout)
    assert "newsbert serve token" in done.stderr
    assert _ask(f"{server['url']}/predictions/news_classification") == 400
    checks = json.loads(cli("doctor", "--json", timeout_s=120).stdout)["checks"]
    (check,) = (check for check in checks if check["check"] == "servers")
    assert (check["state"], f"answers on {server['url']}" in check["result"]) == ("ok", True), check  # without its keys
    stopped = cli("serve", "stop", "--port", server["port"])
    assert stopped.stdout == f"stopped {tiny_image} on {server['url']}\n"


def test_metrics_are_on_their_port_even_if_the_container_uses_it_for_the_model(tiny_image: str, cli: Cli) -> None:
    host, port = "127.0.0.2", run.CONTAINER_PORT
    start = ("serve", "container", tiny_image, "--host", host)
    same = cli(*start, "--port", port, "--metrics-port", port)
    assert same.returncode == 2
    assert f"port {port} cannot be for metrics too" in same.stderr
    done = cli(*start, "--port", "0", "--metrics-port", port, "--detach", "--json")
    assert done.returncode == 0, done.stderr
    server = json.loads(done.stdout)
    try:
        assert server["metrics"] == f"http://{host}:{port}/metrics"
        predictions = f"{server['url']}/predictions/news_classification"
        assert [_ask(predictions), _ask(predictions, content_type="image/png")] == [200, 415]
        with urllib.request.urlopen(server["metrics"], timeout=20) as response:
            page = Page(response.read().decode())
    finally:
        assert cli("serve", "stop", "--port", server["port"]).returncode == 0
    assert page.get("newsbert_requests_total", model="TinyModel/1", status="415") == 1
    assert page.get("newsbert_workers") == 1
    assert page.get("ts_inference_requests_total") >= 2


@pytest.mark.parametrize("below", [0.0, 1.0])
def test_the_threshold_for_reviews_can_be_set(tiny_image: str, below: float) -> None:
    with run.serving(tiny_image, ServeSettings(port=0, review_threshold=below), threading.Event(), print) as running:
        assert running is not None
        predictions = Client(running.address.url).predict(["goal", "x"])
        assert [prediction.review for prediction in predictions] == [below == 1, below == 1]
