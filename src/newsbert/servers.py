"""Notes of the servers that were started with `--detach`, so that they can be found and stopped."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from newsbert import config, errors
from newsbert.errors import NewsbertError, NotFoundError, ServingError

_END_TIMEOUT_S = 20


@dataclass(frozen=True)
class Detached:
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


def note(server: Detached) -> None:
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


def this_process(port: int, url: str, model: str, key_file: Path | None, stop_s: float, metrics: str = "") -> Detached:
    """This process as a server."""
    pid = os.getpid()
    return Detached(port, url, model, pid, "", _started(pid) or 0, str(key_file or ""), stop_s, metrics)


def forget(port: int) -> None:
    """Strike a server out."""
    (_directory() / f"{port}.json").unlink(missing_ok=True)


def running() -> list[Detached]:
    """The servers that were written down and, where they are processes, still run; other notes are struck out."""
    found = []
    for file in sorted(_directory().glob("*.json")):
        try:
            server = Detached(**json.loads(file.read_text(encoding="utf-8")))
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


def start_detached(arguments: list[str], port: int, timeout_s: float) -> Detached:
    """Run `newsbert ARGUMENTS --json` in the background and wait until it has noted that it answers.

    Raises:
        NewsbertError: If it ends or takes longer than `timeout_s`; the error is its own.
    """
    forget(port)
    log = log_file(port)
    result = log.with_suffix(".result")
    try:
        with log.open("w", encoding="utf-8") as stream, result.open("w", encoding="utf-8") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "newsbert", *arguments, "--json"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=stream,
                start_new_session=True,
            )
    except OSError as error:
        raise _unwritable(log, error) from error
    try:
        return _wait_noted(process, port, timeout_s, log, result)
    except BaseException:  # Ctrl+C too: what nobody waits for is not to run on in the background
        _end(process)
        raise
    finally:
        result.unlink(missing_ok=True)


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


def stop(port: int | None, on_stopped: Callable[[Detached], None]) -> None:
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
                from newsbert import engine

                engine.Engine().stop(server.container, server.stop_s)
            else:
                _stop_process(server)
        except NewsbertError as error:
            failures.append(type(error)(f"{server.url} was not stopped: {error.message}", error.hint))
            continue
        forget(server.port)
        on_stopped(server)
    if failures:
        failures[0].message = "; ".join(failure.message for failure in failures)
        raise failures[0]


def _wait_noted(process: "subprocess.Popen[bytes]", port: int, timeout_s: float, log: Path, result: Path) -> Detached:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        server = next((each for each in running() if each.port == port and each.pid == process.pid), None)
        if server is not None:
            return server
        if process.poll() is not None:
            raise _told(result, log)
        time.sleep(0.1)
    raise ServingError(f"no answer on port {port} after {timeout_s:g} s", f"see {log}")


def _told(result: Path, log: Path) -> NewsbertError:
    """The error that a server ended with."""
    try:
        error = errors.from_document(json.loads(result.read_text(encoding="utf-8"))["error"])
    except (OSError, ValueError, LookupError, TypeError):
        return ServingError("the server ended while starting", f"see {log}")
    error.hint = f"{error.hint} (its log is {log})" if error.hint else f"see {log}"
    return error


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _stop_process(server: Detached) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(server.pid, signal.SIGTERM)
    deadline = time.monotonic() + server.stop_s
    while _is_ours(server):
        if time.monotonic() > deadline:
            raise ServingError(f"process {server.pid} runs on after {server.stop_s:g} s", f"kill -9 {server.pid}")
        time.sleep(0.05)


def _is_ours(server: Detached) -> bool:
    """Tell whether the process that was noted runs: its pid may have gone to another program."""
    started = _started(server.pid)
    if started is None or server.started not in {0, started}:
        return False
    try:
        command = Path(f"/proc/{server.pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"newsbert" in command and b"serve" in command


def _started(pid: int) -> int | None:
    """When a process started, in ticks since the machine did; `None` if it runs no more."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return None if fields[0] == "Z" else int(fields[19])
    except (OSError, LookupError, ValueError):
        return None


def _directory() -> Path:
    """Where the notes are.

    Raises:
        ServingError: If it cannot be made.
    """
    directory = config.state_dir() / "servers"
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
