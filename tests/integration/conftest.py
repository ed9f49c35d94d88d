"""A served tiny model, and a container engine where there is one."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import newsbert
from newsbert.bundle.bundle import Bundle
from newsbert.core.settings import ImageSettings, ServeSettings
from newsbert.serving import archive
from newsbert.serving.torchserve import supervisor
from tests.calls import free_port
from tests.images import Images


@pytest.fixture(scope="module")
def server(
    trained: tuple[newsbert.TrainResult, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[supervisor.Server]:
    """A TorchServe that serves the tiny model as TinyModel/1."""
    settings = ServeSettings(port=0)
    store = tmp_path_factory.mktemp("store")
    made = archive.write(Bundle.read(trained[0].bundle), store, "TinyModel/1", settings)
    with supervisor.serving(made, settings, tmp_path_factory.mktemp("run"), print) as running:
        assert running.wait_ready(60, threading.Event())
        yield running


@contextlib.contextmanager
def tracking_server(directory: Path, port: int, end: signal.Signals = signal.SIGTERM) -> Iterator[str]:
    """An MLflow server that keeps artifacts itself: clients see neither its database nor its disk."""
    url = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{directory / 'server.db'}",
        "--artifacts-destination", str(directory / "files"),
    ]  # fmt: skip
    with (directory / "log").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"{url}/health", timeout=2).close()
                break
            except OSError:
                assert time.monotonic() < deadline, (directory / "log").read_text()
                time.sleep(0.2)
        yield url
    finally:
        os.killpg(process.pid, end)
        process.wait(60)


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tracking server for all tests."""
    with tracking_server(tmp_path_factory.mktemp("server"), free_port()) as url:
        yield url


@pytest.fixture(scope="session")
def tiny_image(images: Images) -> str:
    """The tiny model's serving image."""
    return images.serving.tag


@pytest.fixture(scope="session")
def registry(image_settings: ImageSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Registry"]:
    """A registry on the loopback address that the images are named after."""
    program = shutil.which("docker-registry") or shutil.which("registry")
    if program is None:
        if os.environ.get("NEWSBERT_REQUIRE_ENGINE"):
            pytest.fail("NEWSBERT_REQUIRE_ENGINE is set, and there is no docker-registry")
        pytest.skip("there is no docker-registry on this machine (Debian's package of that name)")
    running = Registry(program, image_settings.repository.partition("/")[0], tmp_path_factory.mktemp("registry"))
    running.start()
    yield running
    running.stop()


class Registry:
    """A container registry that can be stopped and started.

    Args:
        program: The registry's.
        address: `HOST:PORT`.
        directory: Where it keeps what is pushed.
    """

    def __init__(self, program: str, address: str, directory: Path) -> None:
        self.address = address
        self._program = program
        self._config = directory / "config.yml"
        self._config.write_text(
            f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {directory}}}}}\n"
            f"http: {{addr: '{address}'}}\n",
            encoding="utf-8",
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen([self._program, "serve", str(self._config)], stderr=subprocess.DEVNULL)
        for _ in range(200):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{self.address}/v2/", timeout=5):
                return
            time.sleep(0.05)
        pytest.fail(f"no registry answers on {self.address}")

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
