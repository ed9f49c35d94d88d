"""Notes of the servers that were started with `--detach`, so that they can be found and stopped."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from newsbert import config
from newsbert.errors import NotFoundError, ServingError

STOP_TIMEOUT_S = 20


@dataclass(frozen=True)
class Detached:
    """A server in the background.

    Attributes:
        port: Where it answers.
        url: The base URL to reach it by.
        model: What it serves.
        pid: The process that keeps a local server; 0 for a container.
        container: The id of a container; empty for a local server.
    """

    port: int
    url: str
    model: str
    pid: int = 0
    container: str = ""


def log_file(port: int) -> Path:
    """Where the detached server on `port` logs."""
    return _directory() / f"{port}.log"


def note(server: Detached) -> None:
    """Write a server down."""
    file = _directory() / f"{server.port}.json"
    partial = file.with_suffix(f".partial-{os.getpid()}")
    partial.write_text(json.dumps(dataclasses.asdict(server)), encoding="utf-8")
    partial.replace(file)


def forget(port: int) -> None:
    """Strike a server out."""
    (_directory() / f"{port}.json").unlink(missing_ok=True)


def running() -> list[Detached]:
    """The servers that were written down and, where they are processes, still run."""
    found = []
    for file in sorted(_directory().glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            server = Detached(**json.loads(file.read_text(encoding="utf-8")))
            if server.container or _is_ours(server.pid):
                found.append(server)
            else:
                file.unlink(missing_ok=True)
    return found


def start_detached(arguments: list[str], port: int, timeout_s: float) -> Detached:
    """Run `newsbert ARGUMENTS` in the background and wait until it has noted that it answers.

    Raises:
        ServingError: If it ends or takes longer than `timeout_s`; the message is its own.
    """
    forget(port)
    log = log_file(port)
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "newsbert", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        return _wait_noted(process, port, timeout_s, log)
    except BaseException:  # Ctrl+C too: what nobody waits for is not to run on in the background
        _end(process)
        raise


def stop(port: int | None) -> list[Detached]:
    """Stop the detached server on `port`, or all of them, and return what was stopped.

    Raises:
        NotFoundError: If there is none.
        ServingError: If one does not stop.
    """
    servers = [server for server in running() if port in {None, server.port}]
    if not servers:
        where = "" if port is None else f" on port {port}"
        raise NotFoundError(f"no detached server is running{where}", "newsbert serve locally --detach starts one")
    for server in servers:
        if server.container:
            from newsbert import engine

            engine.Engine().stop(server.container)
        else:
            _stop_process(server)
        forget(server.port)
    return servers


def _wait_noted(process: "subprocess.Popen[bytes]", port: int, timeout_s: float, log: Path) -> Detached:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        server = next((each for each in running() if each.port == port and each.pid == process.pid), None)
        if server is not None:
            return server
        if process.poll() is not None:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            reason = next((line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")), None)
            raise ServingError(reason or "the server ended while starting", f"see {log}")
        time.sleep(0.1)
    raise ServingError(f"no answer on port {port} after {timeout_s:g} s", f"see {log}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _stop_process(server: Detached) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(server.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while _is_ours(server.pid):
        if time.monotonic() > deadline:
            raise ServingError(f"the server on port {server.port} does not stop", f"kill -9 {server.pid}")
        time.sleep(0.05)


def _is_ours(pid: int) -> bool:
    """Tell whether a process runs and is a newsbert server: a pid may have gone to another program."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, IndexError):
        return False
    return status != "Z" and b"newsbert" in command and b"serve" in command


def _directory() -> Path:
    directory = config.state_dir() / "servers"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return directory
