"""Processes: newsbert in the background, commands of other projects, children that end with their parent."""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from newsbert import errors
from newsbert.core.environment import child_environment
from newsbert.errors import NewsbertError, ServingError

_END_TIMEOUT_S = 20
_PR_SET_PDEATHSIG = 1

T = TypeVar("T")


def start(arguments: list[str], log: Path, noted: Callable[[int], T | None], timeout_s: float, **environment: str) -> T:
    """Run `newsbert ARGUMENTS --json` in the background and wait until it has noted that it is ready.

    Args:
        arguments: Its arguments.
        log: What it logs goes there.
        noted: Asked with its process id for what it noted; nothing as long as it is not ready.
        timeout_s: How long it may take.
        environment: What its environment has besides.

    Raises:
        NewsbertError: If it ends or takes longer; the error is its own.
        OSError: If its log cannot be written.
    """
    result = log.with_suffix(".result")
    log.unlink(missing_ok=True)
    # To append to: `bounded_log` makes it shorter meanwhile.
    with log.open("a", encoding="utf-8") as stream, result.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "newsbert", *arguments, "--json"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=stream,
            env=child_environment(**environment),
            start_new_session=True,
        )
    try:
        return _wait_noted(process, log, noted, timeout_s)
    except BaseException:  # Ctrl+C too: what nobody waits for is not to run on in the background
        _end(process)
        raise
    finally:
        result.unlink(missing_ok=True)


def stop(pid: int, runs: Callable[[], bool], timeout_s: float) -> None:
    """Send SIGTERM to a process and wait until it runs no more.

    Raises:
        ServingError: If it does after so long.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while runs():
        if time.monotonic() > deadline:
            raise ServingError(f"process {pid} runs on after {timeout_s:g} s", f"kill -9 {pid}")
        time.sleep(0.05)


def runs(pid: int, started_at: int, command: bytes) -> bool:
    """Tell whether the process that was noted runs: its pid may have gone to another program."""
    found = started(pid)
    if found is None or started_at not in {0, found}:
        return False
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"newsbert" in line and command in line


def started(pid: int) -> int | None:
    """When a process started, in ticks since the machine did; `None` if it runs no more."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return None if fields[0] == "Z" else int(fields[19])
    except (OSError, LookupError, ValueError):
        return None


def die_with_parent(kill_signal: signal.Signals) -> None:
    """Have the kernel send this process a signal when its parent ends; for `preexec_fn`. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, kill_signal)


def _wait_noted(process: "subprocess.Popen[bytes]", log: Path, noted: Callable[[int], T | None], timeout_s: float) -> T:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = noted(process.pid)
        if found is not None:
            return found
        if process.poll() is not None:
            raise _told(log.with_suffix(".result"), log)
        time.sleep(0.1)
    raise ServingError(f"it is not ready after {timeout_s:g} s", f"see {log}")


def _told(result: Path, log: Path) -> NewsbertError:
    """The error that a command ended with."""
    try:
        error = errors.from_document(json.loads(result.read_text(encoding="utf-8"))["error"])
    except (OSError, ValueError, LookupError, TypeError):
        return ServingError("it ended while starting", f"see {log}")
    error.hint = f"{error.hint} (its log is {log})" if error.hint else f"see {log}"
    return error


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class ExternalTool:
    """A command that is installed here, with arguments that all calls have.

    Args:
        name: Its name.
        arguments: Those arguments.
        mend: The command that tells whether it can do its part.

    Raises:
        ServingError: If it is not installed.
    """

    def __init__(self, name: str, arguments: Sequence[str], mend: str) -> None:
        found = shutil.which(name)
        if found is None:
            raise ServingError(f"{name} is not installed", f"install it, then: {mend}")
        self._name, self._command, self._mend = name, [found, *arguments], mend

    def run(self, *arguments: str, given: str | None = None) -> str:
        """Run it with arguments and a text on its standard input; return what it printed.

        Raises:
            ServingError: If it fails; the message has what it said last.
        """
        ran = subprocess.run(
            [*self._command, *arguments],
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            check=False,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        if ran.returncode != 0:
            said = [line.strip() for line in (ran.stderr or ran.stdout).splitlines() if line.strip()]
            reason = next((line for line in said if line.lower().startswith("error")), said[-1] if said else "")
            raise ServingError(
                f"{self._name} {' '.join(arguments[:2])} failed: {reason or f'exit code {ran.returncode}'}", self._mend
            )
        return ran.stdout
