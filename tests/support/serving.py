"""`newsbert serve locally` as tests start it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from newsbert.bundle.bundle import Bundle
from tests.support import processes

PATH = "/predictions/news_classification"
SLOW = ("--cascade", "off")
"""Options of a server whose encoder reads every text: the companion would answer the tests' texts at once."""


@dataclass
class Served:
    """A `newsbert serve locally` that answers."""

    process: "subprocess.Popen[str]"
    ready: dict[str, Any]
    log: Path

    @property
    def url(self) -> str:
        return str(self.ready["url"])

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def ask(self, token: str | None = None) -> int:
        """The status that a request gets."""
        headers = {"Content-Type": "text/plain", **({"Authorization": f"Bearer {token}"} if token else {})}
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + PATH, b"goal", headers), timeout=20) as done:
                return int(done.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def java(self) -> psutil.Process:
        return next(child for child in processes.children(self.process.pid) if child.name() == "java")

    def worker(self) -> psutil.Process:
        return processes.with_command("model_service_worker.py", processes.children(self.process.pid))[0]


Start = Callable[..., Served]


@pytest.fixture
def start(bundle: Bundle, tmp_path: Path) -> Iterator[Start]:
    """Serve the tiny model with further arguments and variables, and wait until it answers."""
    with contextlib.ExitStack() as stack:

        def run(*arguments: object, model: Path | None = None, **env: str) -> Served:
            log = tmp_path / "server.log"
            command = [
                sys.executable, "-m", "newsbert", "serve", "locally", str(model or bundle.path),
                "--port", "0", "--json", *map(str, arguments),
            ]  # fmt: skip
            with log.open("w") as stderr:
                process = subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=stderr, text=True, env={**os.environ, **env}
                )
            stack.callback(_end, process)
            assert process.stdout is not None
            stack.enter_context(process.stdout)
            document = ""
            while not document.endswith("}\n"):
                line = process.stdout.readline()
                assert line, log.read_text()
                document += line
            return Served(process, json.loads(document), log)

        yield run


@pytest.fixture
def serve(start: Start) -> Callable[..., Served]:
    """Serve the tiny model with the native server."""
    return lambda *arguments, **options: start("--server", "native", *arguments, **options)


def _end(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        process.kill()
    process.wait()
