"""Servers for tests: MLflow's tracking server, a registry of images, `newsbert serve locally`."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def tracking_server(directory: Path, port: int, end: signal.Signals = signal.SIGTERM) -> Iterator[str]:
    """An MLflow server that stores artifacts itself: clients see neither its database nor its disk."""
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
