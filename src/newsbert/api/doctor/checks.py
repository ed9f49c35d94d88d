"""What a check of a machine is, and what it finds."""

from collections.abc import Callable
from dataclasses import dataclass

from newsbert.errors import NewsbertError

OK, NOTE, OFF, FAILED = "ok", "note", "off", "failed"
"""`ok`; `note`: something that newsbert can do without; `off`: nothing is set up that could be looked at; `failed`: no
training, or no serving, on this machine."""


class NoteError(NewsbertError):
    """What newsbert can do without is not as it should be."""


class UnusedError(NewsbertError):
    """There is nothing to look at."""


@dataclass(frozen=True)
class Check:
    """Something to look at.

    Attributes:
        name: What it is about.
        look: Looks, and returns what it found; raises a `NewsbertError` with the command that mends it.
        needed: Whether training and serving here need it.
    """

    name: str
    look: Callable[[], str]
    needed: bool = False


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        check: Its name.
        state: `ok`, `note`, `off` or `failed`.
        found: What there is.
        mend: The command that mends it, or what to do.
    """

    check: str
    state: str
    found: str
    mend: str | None = None
