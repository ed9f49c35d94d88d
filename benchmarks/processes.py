"""A server as a tree of processes: start it, see what it takes, stop all of it."""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

_STOP_S = 30


class DidNotStartError(Exception):
    """A server that ended, or did not answer in time."""


@contextlib.contextmanager
def started(command: list[str], environment: dict[str, str], work: Path) -> Iterator[psutil.Process]:
    """Run a command in `work` until the block ends; what it prints goes to `log.txt` there."""
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
        # Noted before, since what a server leaves behind when it ends is nobody's child.
        members = tree(psutil.Process(process.pid)) if process.poll() is None else []
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        for member in members:
            with contextlib.suppress(psutil.Error):
                member.terminate()
        _, left = psutil.wait_procs(members, timeout=5)
        for member in left:
            with contextlib.suppress(psutil.Error):
                member.kill()
        process.wait()


def tree(root: psutil.Process) -> list[psutil.Process]:
    """The process and all that descend from it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [root, *root.children(recursive=True)]
    return []


def memory_bytes(root: psutil.Process) -> int:
    """Memory of a tree: each page once, shared ones by their share (proportional set size)."""
    total = 0
    for member in tree(root):
        with contextlib.suppress(psutil.Error):
            total += member.memory_full_info().pss
    return total


def cpu_s(root: psutil.Process) -> float:
    """Processor time of a tree up to now, children that have ended included."""
    total = 0.0
    for member in tree(root):
        with contextlib.suppress(psutil.Error):
            times = member.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def last_lines(work: Path, count: int = 5) -> str:
    """The end of what a server printed."""
    return "\n".join((work / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()[-count:])


def wait_until(answers: Callable[[], bool], root: psutil.Process, work: Path, timeout_s: float) -> float:
    """Wait until a server answers; the seconds that it took.

    Raises:
        DidNotStartError: If it ends first, or takes longer than `timeout_s`.
    """
    started_s = time.perf_counter()
    while not answers():
        if not root.is_running() or root.status() == psutil.STATUS_ZOMBIE:
            raise DidNotStartError(f"it ended by itself:\n{last_lines(work)}")
        if time.perf_counter() - started_s > timeout_s:
            raise DidNotStartError(f"no answer after {timeout_s:g} s:\n{last_lines(work)}")
        time.sleep(0.2)
    return time.perf_counter() - started_s
