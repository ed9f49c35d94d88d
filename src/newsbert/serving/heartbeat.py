"""Heartbeat of a server's workers, and the supervisor's signal to them: files in a common directory.

TorchServe does not show whether it is answering a request, and has no command to stop accepting requests. A worker's
file is two numbers, mapped into its memory, so an update needs no system call.
"""

import contextlib
import mmap
import os
import time
from collections.abc import Iterator
from pathlib import Path

from newsbert.core import files

_SUFFIX, _CLOSING = ".mark", "closing"
_BUSY, _ANSWERED_NS = range(2)
_MARK_BYTES = 16


class Heartbeat:
    """The heartbeat directory of a server.

    Args:
        directory: Its path. If `None`, as under a TorchServe that newsbert did not start, nothing is written or read.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._mark: memoryview[int] | None = None

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Mark this worker as busy during the block, and record the time of the answer after it."""
        if self._directory is None:
            yield
            return
        if self._mark is None:
            self._mark = _create_mark(self._directory)
        self._mark[_BUSY] = 1
        try:
            yield
            self._mark[_ANSWERED_NS] = time.monotonic_ns()
        finally:
            self._mark[_BUSY] = 0

    @property
    def closing(self) -> bool:
        """True if the workers must reject new requests."""
        return self._directory is not None and (self._directory / _CLOSING).exists()

    def close(self) -> None:
        """Make the workers reject new requests from now on."""
        assert self._directory is not None
        (self._directory / _CLOSING).touch()

    def busy(self) -> bool:
        """Return whether a live worker is answering a batch."""
        return any(mark[_BUSY] and Path(f"/proc/{pid}").exists() for pid, mark in self._read_marks())

    def last(self) -> int:
        """Return the monotonic time of the last answered batch, in nanoseconds; 0 before the first."""
        return max((mark[_ANSWERED_NS] for _, mark in self._read_marks()), default=0)

    def _read_marks(self) -> "Iterator[tuple[str, memoryview[int]]]":
        assert self._directory is not None
        for file in self._directory.glob(f"*{_SUFFIX}"):
            yield file.stem, memoryview(file.read_bytes()).cast("Q")


def _create_mark(directory: Path) -> "memoryview[int]":
    """Create this worker's file, and map it into memory."""
    file = directory / f"{os.getpid()}{_SUFFIX}"
    files.write_atomically(file, bytes(_MARK_BYTES))
    with file.open("r+b") as opened:
        return memoryview(mmap.mmap(opened.fileno(), 0)).cast("Q")
