"""Notes of the servers that were started with `--detach`, so that they can be found and stopped."""

import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from newsbert.core import environment, processes
from newsbert.errors import NewsbertError, NotFoundError, ServingError


@dataclass(frozen=True)
class DetachedServer:
    """A server in the background.

    Attributes:
        port: Where it answers.
        url: The base URL to reach it by.
        model: What it serves.
        pid: The process that keeps a local server; 0 for a container.
        container: The id of a container; empty for a local server.
        started: When that process started, in the kernel's ticks; a pid may have gone to another one.
        key_file: Where its tokens are, if it wants any.
        stop_s: How long it may take to stop.
        metrics: The URL of its metrics, if it can be reached.
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
    """Where the detached server on `port` logs."""
    return _directory() / f"{port}.log"


def note(server: DetachedServer) -> None:
    """Write a server down.

    Raises:
        ServingError: If it cannot be written.
    """
    file = _directory() / f"{server.port}.json"
    partial = file.with_suffix(f".partial-{os.getpid()}")
    try:
        partial.write_text(json.dumps(dataclasses.asdict(server)), encoding="utf-8")
        partial.replace(file)
    except OSError as error:
        raise _unwritable(file, error) from error


def this_process(
    port: int, url: str, model: str, key_file: Path | None, stop_s: float, metrics: str = ""
) -> DetachedServer:
    """This process as a server."""
    pid = os.getpid()
    return DetachedServer(port, url, model, pid, "", processes.started(pid) or 0, str(key_file or ""), stop_s, metrics)


def forget(port: int) -> None:
    """Strike a server out."""
    (_directory() / f"{port}.json").unlink(missing_ok=True)


def noted() -> set[int]:
    """The ports of servers that are written down, whether they still run or not."""
    return {int(file.stem) for file in _directory().glob("*.json") if file.stem.isdecimal()}


def running() -> list[DetachedServer]:
    """The servers that were written down and, where they are processes, still run; other notes are struck out."""
    found = []
    for file in sorted(_directory().glob("*.json")):
        try:
            server = DetachedServer(**json.loads(file.read_text(encoding="utf-8")))
            if server.container or _is_ours(server):
                found.append(server)
                continue
        except FileNotFoundError:  # struck out meanwhile
            continue
        except (OSError, ValueError, TypeError):
            pass
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
    return found


def start_detached(arguments: list[str], port: int, timeout_s: float) -> DetachedServer:
    """Run `newsbert ARGUMENTS --json` in the background and wait until it has noted that it answers.

    Raises:
        NewsbertError: If it ends or takes longer than `timeout_s`; the error is its own.
    """
    forget(port)
    log = log_file(port)

    def noted(pid: int) -> DetachedServer | None:
        return next((each for each in running() if each.port == port and each.pid == pid), None)

    try:
        return processes.start(arguments, log, noted, timeout_s)
    except OSError as error:
        raise _unwritable(log, error) from error


def key_file(port: int | None) -> Path:
    """The key file of the detached server on `port`, or of the only one that wants tokens.

    Raises:
        NotFoundError: If there is none, or several.
    """
    found = [server for server in running() if port in {None, server.port} and server.key_file]
    if len(found) == 1:
        return Path(found[0].key_file)
    if found:
        raise NotFoundError(
            f"several servers want tokens: ports {', '.join(str(server.port) for server in found)}",
            f"newsbert serve token --port {found[0].port}",
        )
    where = "" if port is None else f" on port {port}"
    raise NotFoundError(
        f"no detached server{where} wants tokens", "newsbert serve token --key-file FILE, which a server prints"
    )


def stop(port: int | None, on_stopped: Callable[[DetachedServer], None]) -> None:
    """Stop the detached server on `port`, or all of them.

    Args:
        port: Its port; all if `None`.
        on_stopped: Called with each that was stopped.

    Raises:
        NotFoundError: If there is none.
        NewsbertError: If one does not stop; the others are stopped nevertheless.
    """
    servers = [server for server in running() if port in {None, server.port}]
    if not servers:
        where = "" if port is None else f" on port {port}"
        raise NotFoundError(f"no detached server is running{where}", "newsbert serve locally --detach starts one")
    failures: list[NewsbertError] = []
    for server in servers:
        try:
            if server.container:
                from newsbert.images.engine import engine

                engine.Engine().stop(server.container, server.stop_s)
            else:
                processes.stop(server.pid, functools.partial(_is_ours, server), server.stop_s)
        except NewsbertError as error:
            failures.append(type(error)(f"{server.url} was not stopped: {error.message}", error.hint))
            continue
        forget(server.port)
        on_stopped(server)
    if failures:
        failures[0].message = "; ".join(failure.message for failure in failures)
        raise failures[0]


def _is_ours(server: DetachedServer) -> bool:
    return processes.runs(server.pid, server.started, b"serve")


def _directory() -> Path:
    """Where the notes are.

    Raises:
        ServingError: If it cannot be made.
    """
    directory = environment.state_dir() / "servers"
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise _unwritable(directory, error) from error
    return directory


def _unwritable(path: Path, error: OSError) -> ServingError:
    return ServingError(
        f"servers are noted in {path}, which cannot be written: {error.strerror or error}",
        "set NEWSBERT_STATE_DIR to a directory that can",
    )
