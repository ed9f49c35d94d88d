"""What the workers of a server let their supervisor know, and it them: files in a directory that they share.

TorchServe tells nobody from outside whether a request is being answered, nor can it be told to take no more of them.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_BUSY, _ANSWERED, _CLOSING = "busy-", "answered", "closing"


class Activity:
    """The directory.

    Args:
        directory: Where it is; without one nothing is told and nothing heard, as under somebody else's TorchServe.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """In a worker: let it be known that a batch is being answered, and after it that one was."""
        if self._directory is None:
            yield
            return
        mark = self._directory / f"{_BUSY}{os.getpid()}"
        mark.touch()
        try:
            yield
            os.utime(mark)
            mark.replace(self._directory / _ANSWERED)
        finally:
            mark.unlink(missing_ok=True)

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
        assert self._directory is not None
        pids = [each.name.removeprefix(_BUSY) for each in self._directory.glob(f"{_BUSY}*")]
        return any(Path(f"/proc/{pid}").exists() for pid in pids)

    def last(self) -> int:
        """When a batch was last answered, as a number that grows; 0 before the first."""
        assert self._directory is not None
        try:
            return (self._directory / _ANSWERED).stat().st_mtime_ns
        except FileNotFoundError:
            return 0
