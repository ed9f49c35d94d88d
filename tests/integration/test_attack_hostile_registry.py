"""A tracking server whose every answer may lie: nothing is written, requested or run where it chooses."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import newsbert
from newsbert.api import models
from newsbert.bundle.bundle import Bundle
from newsbert.core.settings import TrackingSettings
from newsbert.errors import NewsbertError
from newsbert.tracking import experiment, locate
from newsbert.tracking.client import TrackingClient
from newsbert.tracking.registry import add_artifact
from newsbert.tracking.run_list import training_runs
from tests.support.hostile_registry import MODEL_ID, RUN_ID, HostileRegistry, hostile_registry

Trained = tuple[newsbert.TrainResult, str]
FILES = f"mlflow-artifacts/artifacts/1/models/{MODEL_ID}/artifacts/extra_files"


@pytest.fixture
def registry(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostileRegistry]:
    with hostile_registry(trained[0].bundle, Bundle.read(trained[0].bundle).digest) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        monkeypatch.setenv("NEWSBERT_CACHE_DIR", str(tmp_path / "cache"))
        yield server


@pytest.fixture
def other_host() -> Iterator[tuple[str, list[str]]]:
    """Another server, and the requests that it got."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(f"{self.path} {self.headers.get('Authorization')} {self.headers.get('X-Chosen')}")
            self.send_response(404)
            self.end_headers()

        do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}", requests
    server.shutdown()
    server.server_close()


def test_an_honest_server_of_these_routes_is_read(registry: HostileRegistry) -> None:
    assert newsbert.load("Victim/1").predict(["goal team"])
    assert newsbert.load("Victim@champion").predict(["goal team"])
    assert newsbert.load(RUN_ID).predict(["goal team"])


@pytest.mark.parametrize("run_id", ["../../elsewhere", "a\x1b[2J", "%2e%2e", f"{RUN_ID}?x=/.."])
def test_attack_a_new_runs_id_is_a_path(registry: HostileRegistry, run_id: str) -> None:
    """Training makes `bundles/RUN_ID`."""
    registry.info |= {"run_id": run_id, "run_uuid": run_id}
    tracker = TrackingClient(TrackingSettings(tracking_uri=registry.url))
    with pytest.raises(NewsbertError, match="a run's id") as caught, experiment.start_run(tracker):
        pytest.fail("the run was begun")
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    "lie",
    [{"name": "../../x"}, {"name": "Other"}, {"name": "a\x1b[2J"}, {"version": "1/../../x"}, {"run_id": "../x"}],
    ids=str,
)
def test_attack_an_alias_points_at_what_is_no_version_of_that_model(
    registry: HostileRegistry, lie: dict[str, Any]
) -> None:
    registry.answers["mlflow/registered-models/alias"] = {"model_version": registry.version | lie}
    with pytest.raises(NewsbertError) as caught:
        locate.locate("Victim@champion")
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("time", [2**62, -(2**62)])
def test_attack_times_that_no_calendar_has(registry: HostileRegistry, time: int) -> None:
    registry.info |= {"start_time": time, "end_time": time}
    assert models.register(None, "Victim").choice
    assert training_runs(TrackingClient(TrackingSettings(tracking_uri=registry.url)), 1)


@pytest.mark.parametrize("name", ["newsbert.json", "class_mapping.json", "model.onnx"])
def test_attack_a_file_has_no_end(registry: HostileRegistry, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = 0

    def endless(handler: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.send_response(200)
        handler.end_headers()
        while sent < 2**28:
            handler.wfile.write(bytes(2**20))
            sent += 2**20

    registry.answers[f"{FILES}/{name}"] = endless
    monkeypatch.setattr("newsbert.tracking.artifacts.MAX_BUNDLE_BYTES", 32 * 2**20)
    with pytest.raises(NewsbertError, match="larger than"):
        newsbert.load("Victim/1")
    assert sent < 2**27


def test_attack_a_file_is_fetched_from_an_address_of_the_servers_choice(
    registry: HostileRegistry, other_host: tuple[str, list[str]]
) -> None:
    address, requests = other_host
    registry.answers["mlflow/server-info"] = {"multipart_downloads_enabled": True}

    for name in ("newsbert.json", "class_mapping.json"):
        registry.answers[f"{FILES}/{name}".replace("artifacts/1", "presigned/1")] = {
            "url": f"http://{address}/latest/meta-data", "headers": {"X-Chosen": "yes"}, "file_size": 100,
        }  # fmt: skip
    assert newsbert.load("Victim/1").predict(["goal team"])
    assert requests == []


def test_attack_a_file_is_redirected(registry: HostileRegistry, other_host: tuple[str, list[str]]) -> None:
    address, requests = other_host

    def redirect(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", f"http://{address}/latest/meta-data")
        handler.end_headers()

    registry.answers[f"{FILES}/newsbert.json"] = redirect
    with pytest.raises(NewsbertError):
        newsbert.load("Victim/1")
    assert requests == []


@pytest.mark.parametrize("location", ["abfss://c@account.{host}/x", "wasbs://c@account.{host}/x", "http://{host}/x"])
def test_attack_artifacts_are_written_to_another_host(
    registry: HostileRegistry,
    other_host: tuple[str, list[str]],
    trained: Trained,
    tmp_path: Path,
    location: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a run that is new, of one whose location is another when it is needed, and of a logged model."""
    address, requests = other_host
    elsewhere = {"artifact_uri": location.format(host=address)}
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "user")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "password")
    file = tmp_path / "file.txt"
    file.write_text("x", encoding="utf-8")
    tracker = TrackingClient(TrackingSettings(tracking_uri=registry.url))

    registry.model |= elsewhere
    with pytest.raises(NewsbertError, match="which is not read"):
        add_artifact(tracker, "Victim", "1", file)
    with pytest.raises(NewsbertError, match="which is not read"), experiment.start_run(tracker) as log:
        registry.info |= elsewhere
        log.artifacts([file])
    registry.answers["mlflow/runs/search"] = {}
    with pytest.raises(NewsbertError, match="which is not read"):
        models.register(str(trained[0].bundle), "Victim")
    assert requests == []


@pytest.mark.parametrize("location", ["{home}", "file://{home}", "file:{home}/x"])
def test_attack_artifacts_are_written_to_a_directory_of_another_machines_choice(
    registry: HostileRegistry, tmp_path: Path, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = registry.url.replace("127.0.0.1", "0.0.0.0")
    home = tmp_path / "home"
    home.mkdir()
    registry.info |= {"artifact_uri": location.format(home=home)}
    tracker = TrackingClient(TrackingSettings(tracking_uri=url))
    with pytest.raises(NewsbertError, match="a directory of this machine"), experiment.start_run(tracker):
        pytest.fail("the run was begun")
    registry.model |= {"artifact_uri": location.format(home=home)}
    (tmp_path / "file.txt").touch()
    with pytest.raises(NewsbertError, match="a directory of this machine"):
        add_artifact(tracker, "Victim", "1", tmp_path / "file.txt")
    assert list(home.iterdir()) == []


SHAPES: tuple[Any, ...] = (
    [], "x", 7, None, {"model_versions": 7}, {"run": {"info": 7}}, {"model": []}, {"run": {}},
    {"model_versions": [{"name": "Victim", "version": "²", "run_id": RUN_ID}]},
    {"model_versions": [{"name": "Victim"}]}, {"model": {"info": {"artifact_uri": 7}}},
)  # fmt: skip
LIES: list[tuple[str, Any]] = [
    (route, answer)
    for route in ("mlflow/model-versions/search", "mlflow/runs/get", f"mlflow/logged-models/{MODEL_ID}",
                  "mlflow/experiments/search")
    for answer in SHAPES
]  # fmt: skip


@pytest.mark.parametrize("reference", ["Victim/1", RUN_ID, None], ids=str)
def test_attack_answers_of_other_shapes(registry: HostileRegistry, reference: str | None) -> None:
    """Whatever JSON comes: an error of ours, or the model."""
    failures = []
    for route, answer in LIES:
        registry.answers = {route: answer}
        try:
            locate.locate(reference)
        except NewsbertError as error:
            if not error.message.isprintable():
                failures.append((route, answer, error.message))
        except Exception as error:
            failures.append((route, answer, repr(error)))
    assert not failures


def test_attack_serving_the_latest_run_names_its_user(registry: HostileRegistry) -> None:
    registry.answers["mlflow/model-versions/search"] = {}
    registry.tags["mlflow.user"] = "eve\x1b[2J"
    choice = locate.locate(None).choice
    assert choice is not None and choice.isprintable() and f"run {RUN_ID} of 'eve\\x1b[2J'" in choice
