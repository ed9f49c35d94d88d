"""Registries of images and the engine: what is pushed, and what happens when one of them goes away."""

import contextlib
import json
import socket
import threading
import time
from pathlib import Path

import pytest

import newsbert
from newsbert.bundle.bundle import Bundle
from newsbert.core.settings import ImageSettings
from newsbert.errors import EngineError
from newsbert.images import build as building
from newsbert.images.engine.engine import Engine
from tests.support.cli import Cli
from tests.support.images import Images, image_toml
from tests.support.servers import Registry

Trained = tuple[newsbert.TrainResult, str]


@pytest.mark.engine
def test_a_push_gives_a_digest_and_notes_it(
    images: Images, registry: Registry, trained: Trained, image_settings: ImageSettings, cli: Cli, tmp_path: Path
) -> None:
    import docker
    import mlflow

    (tmp_path / "newsbert.toml").write_text(image_toml(image_settings), encoding="utf-8")
    done = cli("build-image", "TinyModel/1", "--push", "--json", "--tracking-uri", trained[1])
    assert done.returncode == 0, done.stderr
    (built,) = json.loads(done.stdout)["images"]
    assert built["cached"]
    name, _, digest = built["digest"].partition("@")
    assert name == f"{image_settings.repository}/torchserve"
    assert "pushing " in done.stderr
    version = mlflow.MlflowClient(trained[1]).get_model_version("TinyModel", "1")
    assert version.tags["newsbert.image_digest"] == built["digest"]
    deployed = cli("export", "kubernetes", "TinyModel/1", "--tracking-uri", trained[1])
    assert f"image: {built['digest']}\n" in deployed.stdout
    assert f"newsbert/run: {version.run_id}\n" in deployed.stdout
    assert deployed.stderr == ""
    client = docker.from_env()
    assert client.images.get_registry_data(f"{name}:TinyModel-1").id == digest
    assert client.images.get_registry_data(built["content_tag"]).id == digest


@pytest.mark.engine
def test_a_registry_that_goes_away_in_the_middle_is_an_error_and_can_be_pushed_to_again(
    images: Images, registry: Registry, image_settings: ImageSettings
) -> None:
    pushing: list[str] = []

    def stop_once(layer: str, done: int, total: int) -> None:
        pushing.append(layer)
        registry.stop()

    with pytest.raises(EngineError, match=r"pushing .* failed") as caught:
        building.push(images.trainer, None, None, stop_once)
    assert "push it again" in str(caught.value.hint) or "push again" in str(caught.value.hint)
    assert pushing
    registry.start()
    assert "@sha256:" in building.push(images.base, None, None, lambda *_: None)[images.base.tag]


@pytest.mark.engine
def test_the_doctor_checks_the_registry_with_the_engine(
    engine: Engine, registry: Registry, image_settings: ImageSettings, cli: Cli
) -> None:
    def looked() -> dict[str, str]:
        done = cli("doctor", "--json", NEWSBERT_IMAGE_REPOSITORY=image_settings.repository)
        checks = {check["check"]: check for check in json.loads(done.stdout)["checks"]}
        assert checks["engine"]["state"] == "ok"
        registered: dict[str, str] = checks["registry"]
        return registered

    there = looked()
    assert (there["state"], there["result"]) == (
        "ok",
        f"{registry.address} answers, without credentials of docker login",
    )
    registry.stop()
    try:
        away = looked()
    finally:
        registry.start()
    assert (away["state"], "asking the registry of" in away["result"]) == ("note", True), away


@pytest.mark.engine
def test_an_engine_that_goes_away_in_the_middle_is_an_error(images: Images, bundle: Bundle, cli: Cli) -> None:
    with _Relay("/var/run/docker.sock") as relay:
        threading.Thread(target=relay.cut_when_busy, daemon=True).start()
        done = cli(
            "build-image", "--base", "--rebuild", "--repository", "cut", DOCKER_HOST=f"tcp://127.0.0.1:{relay.port}"
        )
    assert done.returncode == 1
    assert "Error: building cut/newsbert-base" in done.stderr
    assert "Traceback" not in done.stderr


class _Relay:
    """Passes connections on to the engine's socket until it is cut."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.port = self._listener.getsockname()[1]
        self.busy = threading.Event()

    def __enter__(self) -> "_Relay":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def cut_when_busy(self) -> None:
        """End it a second after a build has begun."""
        self.busy.wait(60)
        time.sleep(1)
        self.cut()

    def cut(self) -> None:
        """End it and every connection."""
        self._listener.close()
        for connection in self._open:
            _end(connection)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(self._path)
            self._open += [near, far]
            threading.Thread(target=self._pump, args=(near, far), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if b"/build?" in data:
                    self.busy.set()
                target.sendall(data)
        except OSError:
            pass
        finally:
            _end(target)


def _end(connection: socket.socket) -> None:
    """End a connection, if it has not ended."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
