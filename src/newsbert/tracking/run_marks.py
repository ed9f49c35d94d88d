"""Marks of active runs, which reveal the runs whose processes were killed."""

import contextlib
import hashlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from newsbert.core import environment, temporary
from newsbert.errors import NewsbertError

TAG = "newsbert.process"
_FILE = "mark"


@contextlib.contextmanager
def hold(server: str) -> Iterator[str]:
    """Yield a mark for a run that is about to begin, and hold it until the run has ended.

    Args:
        server: A key that identifies the tracking server and the experiment.
    """
    mark = uuid.uuid4().hex
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, NewsbertError):  # without a directory for marks, a kill goes unnoticed
            directory = _get_marks_dir(server)
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            (stack.enter_context(temporary.own(directory)) / _FILE).write_text(mark, encoding="utf-8")
        yield mark


def end_killed(server: str, end: Callable[[str], None]) -> None:
    """End the runs whose processes were killed.

    Args:
        server: The same key as for `hold`.
        end: Ends the active run that has a mark, if there is one.
    """
    with contextlib.suppress(OSError, NewsbertError):  # a failure is retried the next time
        for files in temporary.abandoned(_get_marks_dir(server)):
            mark = _read(files / _FILE)
            if mark is not None:
                end(mark)
            temporary.remove(files)


def _read(file: Path) -> str | None:
    """Return a mark, or `None` if its process was killed before its run began."""
    try:
        return uuid.UUID(file.read_text(encoding="utf-8")).hex
    except (FileNotFoundError, ValueError):
        return None


def _get_marks_dir(server: str) -> Path:
    return environment.state_dir() / "runs" / hashlib.sha256(server.encode("utf-8", "surrogatepass")).hexdigest()[:32]
