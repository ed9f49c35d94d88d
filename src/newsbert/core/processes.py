"""Processes: newsbert in the background, external commands, children that end with their parent."""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from newsbert import errors
from newsbert.core import waiting
from newsbert.core.environment import child_environment
from newsbert.errors import NewsbertError, ServingError

_END_TIMEOUT_S = 20
_PR_SET_PDEATHSIG = 1

T = TypeVar("T")


def start(arguments: list[str], log: Path, noted: Callable[[int], T | None], timeout_s: float, **environment: str) -> T:
    """Run `newsbert ARGUMENTS --json` in the background and wait until it is ready.

    Args:
        arguments: Its arguments.
        log: Its log file.
        noted: Called with its process id; returns what the process recorded, or `None` until it is ready.
        timeout_s: Seconds until it must be ready.
        environment: Additional environment variables.

    Raises:
        NewsbertError: If it ends or takes longer; the error is its own.
        OSError: If its log cannot be written.
    """
    result = log.with_suffix(".result")
    log.unlink(missing_ok=True)
    # Opened to append: `bounded_log` may truncate it meanwhile.
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
        return _wait_until_ready(process, log, noted, timeout_s)
    except BaseException:  # Ctrl+C too: a process that no caller waits for must not stay in the background
        _terminate(process)
        raise
    finally:
        result.unlink(missing_ok=True)


def stop(pid: int, runs: Callable[[], bool], timeout_s: float) -> None:
    """Send SIGTERM to a process and wait until it ends.

    Raises:
        ServingError: If it still runs after the timeout.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    if not waiting.poll(lambda: not runs(), timeout_s, 0.05):
        raise ServingError(f"process {pid} runs on after {timeout_s:g} s", f"kill -9 {pid}")


def runs(pid: int, started_at: int, command: bytes) -> bool:
    """Return whether a recorded process still runs: its pid may belong to another program now."""
    actual_start = started(pid)
    if actual_start is None or started_at not in {0, actual_start}:
        return False
    try:
        command_line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"newsbert" in command_line and command in command_line


def started(pid: int) -> int | None:
    """Return the start time of a process in ticks since boot; `None` if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return None if fields[0] == "Z" else int(fields[19])
    except (OSError, LookupError, ValueError):
        return None


def die_with_parent(kill_signal: signal.Signals) -> None:
    """Make the kernel send this process a signal when its parent ends; for `preexec_fn`. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, kill_signal)


def _wait_until_ready(
    process: "subprocess.Popen[bytes]", log: Path, noted: Callable[[int], T | None], timeout_s: float
) -> T:
    def read_record() -> T | None:
        record = noted(process.pid)
        if record is None and process.poll() is not None:
            raise _read_error(log.with_suffix(".result"), log)
        return record

    record = waiting.poll(read_record, timeout_s)
    if record is None:
        raise ServingError(f"it is not ready after {timeout_s:g} s", f"see {log}")
    return record


def _read_error(result: Path, log: Path) -> NewsbertError:
    """Return the error with which a command ended."""
    try:
        error = errors.from_document(json.loads(result.read_text(encoding="utf-8"))["error"])
    except (OSError, ValueError, LookupError, TypeError):
        return ServingError("it ended while starting", f"see {log}")
    error.hint = f"{error.hint} (its log is {log})" if error.hint else f"see {log}"
    return error


def _terminate(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class ExternalTool:
    """An installed command with the arguments that all calls have in common.

    Args:
        name: Name of the command.
        arguments: The common arguments.
        fix: The command that checks whether the tool works.

    Raises:
        ServingError: If the command is not installed.
    """

    def __init__(self, name: str, arguments: Sequence[str], fix: str) -> None:
        executable = shutil.which(name)
        if executable is None:
            raise ServingError(f"{name} is not installed", f"install it, then: {fix}")
        self._name, self._command, self._hint = name, [executable, *arguments], fix

    def run(self, *arguments: str, text: str | None = None) -> str:
        """Run the command with arguments and a text on standard input; return its output.

        Raises:
            ServingError: If the command fails; the message has the reason from its output.
        """
        completed = subprocess.run(
            [*self._command, *arguments],
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            check=False,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        if completed.returncode != 0:
            lines = [line.strip() for line in (completed.stderr or completed.stdout).splitlines() if line.strip()]
            reason = next((line for line in lines if line.lower().startswith("error")), lines[-1] if lines else "")
            raise ServingError(
                f"{self._name} {' '.join(arguments[:2])} failed: {reason or f'exit code {completed.returncode}'}",
                self._hint,
            )
        return completed.stdout
