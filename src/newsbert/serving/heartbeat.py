"""What the workers of a server let their supervisor know, and it them: files in a directory that they share.

TorchServe tells nobody from outside whether a request is being answered, nor can it be told to take no more of them.
A worker's file is two numbers, mapped into its memory, so that telling costs it no system call.
"""

import contextlib
import mmap
import os
import time
from collections.abc import Iterator
from pathlib import Path

_SUFFIX, _CLOSING = ".mark", "closing"
_BUSY, _ANSWERED_NS = range(2)
_MARK_BYTES = 16


class Heartbeat:
    """The directory.

    Args:
        directory: Where it is; without one nothing is told and nothing heard, as under somebody else's TorchServe.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._mark: memoryview[int] | None = None

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """In a worker: let it be known that a batch is being answered, and after it that one was."""
        if self._directory is None:
            yield
            return
        if self._mark is None:
            self._mark = _create(self._directory)
        self._mark[_BUSY] = 1
        try:
            yield
            self._mark[_ANSWERED_NS] = time.monotonic_ns()
        finally:
            self._mark[_BUSY] = 0

    @property
    def closing(self) -> bool:
        """In a worker: whether requests that come now are to be turned away."""
        return self._directory is not None and (self._directory / _CLOSING).exists()

    def close(self) -> None:
        """Have the workers turn away what comes from now on."""
        assert self._directory is not None
        (self._directory / _CLOSING).touch()

    def busy(self) -> bool:
        """Tell whether a worker that lives is answering a batch."""
        return any(mark[_BUSY] and Path(f"/proc/{pid}").exists() for pid, mark in self._marks())

    def last(self) -> int:
        """When a batch was last answered, as a number that grows; 0 before the first."""
        return max((mark[_ANSWERED_NS] for _, mark in self._marks()), default=0)

    def _marks(self) -> "Iterator[tuple[str, memoryview[int]]]":
        assert self._directory is not None
        for file in self._directory.glob(f"*{_SUFFIX}"):
            yield file.stem, memoryview(file.read_bytes()).cast("Q")


def _create(directory: Path) -> "memoryview[int]":
    """Make this worker's file."""
    file = directory / f"{os.getpid()}{_SUFFIX}"
    partial = file.with_suffix(".partial")
    partial.write_bytes(bytes(_MARK_BYTES))
    with partial.open("r+b") as opened:
        mark = memoryview(mmap.mmap(opened.fileno(), 0)).cast("Q")
    partial.rename(file)
    return mark
