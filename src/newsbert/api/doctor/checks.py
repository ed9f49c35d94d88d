"""Checks of a machine, and their findings."""

from collections.abc import Callable
from dataclasses import dataclass

from newsbert.errors import NewsbertError

OK, NOTE, OFF, FAILED = "ok", "note", "off", "failed"
"""States of a finding.

`ok`; `note`: a problem with an optional part; `off`: not configured, so there is nothing to check; `failed`: this
machine cannot train or cannot serve.
"""


class NoteError(NewsbertError):
    """A problem with an optional part of the setup."""


class UnusedError(NewsbertError):
    """A part of the setup that is not configured, so that there is nothing to check."""


@dataclass(frozen=True)
class Check:
    """A check of the machine.

    Attributes:
        name: The subject of the check.
        look: Runs the check and returns a description; raises a `NewsbertError` with the command that fixes it.
        needed: Whether training and serving on this machine need it.
    """

    name: str
    look: Callable[[], str]
    needed: bool = False


@dataclass(frozen=True)
class Finding:
    """The result of a check.

    Attributes:
        check: The name of the check.
        state: `ok`, `note`, `off` or `failed`.
        result: A description of the result.
        fix: The command that fixes the problem, or other advice.
    """

    check: str
    state: str
    result: str
    fix: str | None = None
