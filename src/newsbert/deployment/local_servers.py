"""Records of the servers that were started with `--detach`, for listing and stopping them."""

import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from newsbert.core import environment, files, processes
from newsbert.errors import NewsbertError, NotFoundError, ServingError


@dataclass(frozen=True)
class DetachedServer:
    """A server in the background.

    Attributes:
        port: Port on which it answers.
        url: Base URL of the server.
        model: Name of the served model.
        pid: Id of the process that runs a local server; 0 for a container.
        container: Id of a container; empty for a local server.
        started: Start time of that process, in the kernel's ticks; another process may have reused the pid.
        key_file: Path of the file with its tokens; empty if it requires none.
        stop_s: Seconds that it may take to stop.
        metrics: URL of its metrics, if it can be reached.
    """

    port: int
    url: str
    model: str
    pid: int = 0
    container: str = ""
    started: int = 0
    key_file: str = ""
    stop_s: float = 20.0
    metrics: str = ""


def log_file(port: int) -> Path:
    """Return the log file of the detached server on `port`."""
    return _directory() / f"{port}.log"


def note(server: DetachedServer) -> None:
    """Record a server.

    Raises:
        ServingError: If the record cannot be written.
    """
    file = _directory() / f"{server.port}.json"
    try:
        files.write_atomically(file, json.dumps(dataclasses.asdict(server)))
    except OSError as error:
        raise _make_write_error(file, error) from error


def this_process(
    port: int, url: str, model: str, key_file: Path | None, stop_s: float, metrics: str = ""
) -> DetachedServer:
    """Return the record of this process as a server."""
    pid = os.getpid()
    return DetachedServer(port, url, model, pid, "", processes.started(pid) or 0, str(key_file or ""), stop_s, metrics)


def forget(port: int) -> None:
    """Remove the record of a server."""
    (_directory() / f"{port}.json").unlink(missing_ok=True)


def noted() -> set[int]:
    """Return the ports of all recorded servers, running or not."""
    return {int(file.stem) for file in _directory().glob("*.json") if file.stem.isdecimal()}


def running() -> list[DetachedServer]:
    """Return the recorded servers that are containers or running processes; remove all other records."""
    servers = []
    for file in sorted(_directory().glob("*.json")):
        try:
            server = DetachedServer(**json.loads(file.read_text(encoding="utf-8")))
            if server.container or _is_running(server):
                servers.append(server)
                continue
        except FileNotFoundError:  # removed meanwhile
            continue
        except (OSError, ValueError, TypeError):
            pass
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
    return servers


def start_detached(arguments: list[str], port: int, timeout_s: float) -> DetachedServer:
    """Run `newsbert ARGUMENTS --json` in the background and wait until it has recorded that it answers.

    Raises:
        NewsbertError: If it ends or takes longer than `timeout_s`; the error is its own.
    """
    forget(port)
    log = log_file(port)

    def noted(pid: int) -> DetachedServer | None:
        return next((server for server in running() if server.port == port and server.pid == pid), None)

    try:
        return processes.start(arguments, log, noted, timeout_s)
    except OSError as error:
        raise _make_write_error(log, error) from error


def key_file(port: int | None) -> Path:
    """Return the key file of the detached server on `port`, or of the only one that requires tokens.

    Raises:
        NotFoundError: If there is none, or several.
    """
    servers = [server for server in running() if port in {None, server.port} and server.key_file]
    if len(servers) == 1:
        return Path(servers[0].key_file)
    if servers:
        raise NotFoundError(
            f"several servers want tokens: ports {', '.join(str(server.port) for server in servers)}",
            f"newsbert serve token --port {servers[0].port}",
        )
    location = "" if port is None else f" on port {port}"
    raise NotFoundError(
        f"no detached server{location} wants tokens", "newsbert serve token --key-file FILE, which a server prints"
    )


def stop(port: int | None, on_stopped: Callable[[DetachedServer], None]) -> None:
    """Stop the detached server on `port`, or all of them.

    Args:
        port: Port of the server; all if `None`.
        on_stopped: Called with every server that was stopped.

    Raises:
        NotFoundError: If there is none.
        NewsbertError: If a server does not stop; the others are stopped nevertheless.
    """
    servers = [server for server in running() if port in {None, server.port}]
    if not servers:
        location = "" if port is None else f" on port {port}"
        raise NotFoundError(f"no detached server is running{location}", "newsbert serve locally --detach starts one")
    failures: list[NewsbertError] = []
    for server in servers:
        try:
            if server.container:
                from newsbert.images.engine import engine

                engine.Engine().stop(server.container, server.stop_s)
            else:
                processes.stop(server.pid, functools.partial(_is_running, server), server.stop_s)
        except NewsbertError as error:
            failures.append(type(error)(f"{server.url} was not stopped: {error.message}", error.hint))
            continue
        forget(server.port)
        on_stopped(server)
    if failures:
        failures[0].message = "; ".join(failure.message for failure in failures)
        raise failures[0]


def _is_running(server: DetachedServer) -> bool:
    return processes.runs(server.pid, server.started, b"serve")


def _directory() -> Path:
    """Return the directory of the records.

    Raises:
        ServingError: If it cannot be created.
    """
    directory = environment.state_dir() / "servers"
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise _make_write_error(directory, error) from error
    return directory


def _make_write_error(path: Path, error: OSError) -> ServingError:
    return ServingError(
        f"servers are noted in {path}, which cannot be written: {error.strerror or error}",
        "set NEWSBERT_STATE_DIR to a directory that can",
    )
