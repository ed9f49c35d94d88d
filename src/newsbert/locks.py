"""Work of which there is one at a time for a user of this machine."""

import contextlib
import fcntl
from collections.abc import Iterator

from newsbert import config
from newsbert.errors import NewsbertError, ServingError


@contextlib.contextmanager
def alone(work: str, message: str) -> Iterator[None]:
    """Keep others out until the block ends, or this process does.

    Args:
        work: What they are kept out of, as a file's name.
        message: What to tell those who come.

    Raises:
        ServingError: If there is somebody.
        NewsbertError: If the state directory cannot be written to.
    """
    directory = config.state_dir()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / f"{work}.lock").open("a", encoding="utf-8")
    except OSError as error:
        raise NewsbertError(f"{directory} cannot be written to: {error.strerror}", "set NEWSBERT_STATE_DIR") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ServingError(message, "wait for it") from error
        yield
