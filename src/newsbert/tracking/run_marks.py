"""Marks of the runs under way: those whose processes were killed are known by them."""

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
    """Yield a mark for a run that is about to begin, which is held until it has ended.

    Args:
        server: What tells the tracking server and the experiment from others.
    """
    mark = uuid.uuid4().hex
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, NewsbertError):  # with no place for marks, its death stays unknown
            place = _place(server)
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            (stack.enter_context(temporary.own(place)) / _FILE).write_text(mark, encoding="utf-8")
        yield mark


def end_killed(server: str, end: Callable[[str], None]) -> None:
    """Have runs ended whose processes were killed.

    Args:
        server: As `hold` takes it.
        end: Ends the run under way that has a mark, if there is one.
    """
    with contextlib.suppress(OSError, NewsbertError):  # what does not work now is tried the next time
        for files in temporary.abandoned(_place(server)):
            mark = _read(files / _FILE)
            if mark is not None:
                end(mark)
            temporary.remove(files)


def _read(file: Path) -> str | None:
    """Return a mark; nothing where its process was killed before its run began."""
    try:
        return uuid.UUID(file.read_text(encoding="utf-8")).hex
    except (FileNotFoundError, ValueError):
        return None


def _place(server: str) -> Path:
    return environment.state_dir() / "runs" / hashlib.sha256(server.encode("utf-8", "surrogatepass")).hexdigest()[:32]
