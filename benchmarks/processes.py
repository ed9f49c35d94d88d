"""Start a server, measure its tree of processes, and stop all of them."""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

_STOP_S = 30


class DidNotStartError(Exception):
    """The server ended, or did not answer in time."""


@contextlib.contextmanager
def started(command: list[str], environment: dict[str, str], work: Path) -> Iterator[psutil.Process]:
    """Run a command in `work` until the block ends; write its output to `log.txt` there."""
    with (work / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=work,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield psutil.Process(process.pid)
    finally:
        # Listed first: when the server has ended, its children have another parent.
        members = tree(psutil.Process(process.pid)) if process.poll() is None else []
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        for member in members:
            with contextlib.suppress(psutil.Error):
                member.terminate()
        _, remaining = psutil.wait_procs(members, timeout=5)
        for member in remaining:
            with contextlib.suppress(psutil.Error):
                member.kill()
        process.wait()


def tree(root: psutil.Process) -> list[psutil.Process]:
    """Return the process and all its descendants."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [root, *root.children(recursive=True)]
    return []


def is_worker(process: psutil.Process) -> bool:
    """Return whether a process is a worker of a server: it has the model."""
    return any(name in " ".join(process.cmdline()) for name in ("model_service_worker.py", "serving.native.worker"))


def memory_bytes(root: psutil.Process) -> int:
    """Return the memory of a tree, as proportional set size: shared pages count once."""
    total = 0
    for member in tree(root):
        with contextlib.suppress(psutil.Error):
            total += member.memory_full_info().pss
    return total


def cpu_s(root: psutil.Process) -> float:
    """Return the processor time of a tree so far, with that of children that have ended."""
    total = 0.0
    for member in tree(root):
        with contextlib.suppress(psutil.Error):
            times = member.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def last_lines(work: Path, count: int = 5) -> str:
    """Return the last lines of the output of a server."""
    return "\n".join((work / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()[-count:])


def wait_until(answers: Callable[[], bool], root: psutil.Process, work: Path, timeout_s: float) -> float:
    """Wait until a server answers, and return the seconds.

    Raises:
        DidNotStartError: If the server ends first, or takes longer than `timeout_s`.
    """
    started_s = time.perf_counter()
    while not answers():
        if not root.is_running() or root.status() == psutil.STATUS_ZOMBIE:
            raise DidNotStartError(f"the server ended:\n{last_lines(work)}")
        if time.perf_counter() - started_s > timeout_s:
            raise DidNotStartError(f"no answer after {timeout_s:g} s:\n{last_lines(work)}")
        time.sleep(0.2)
    return time.perf_counter() - started_s
