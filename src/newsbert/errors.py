"""Errors that a user can act on.

Every message says what is wrong, with the value, and what to do about it. Any other exception is a bug in newsbert and
keeps its traceback.
"""


class NewsbertError(Exception):
    """Base class of the errors that a user can act on (exit code 1).

    Args:
        message: What is wrong, with the value that is wrong.
        hint: What to do about it: a command to run if there is one.
    """

    exit_code = 1
    examined = False
    """True if `newsbert doctor` looks for the cause of such errors."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        """Support pickling between processes; not all subclasses are made from message and hint."""
        return from_document, (self.document(),)

    def document(self) -> dict[str, str | None]:
        """Return the error as `--json` shows it."""
        return {"code": self.code, "message": self.message, "hint": self.hint}

    @property
    def code(self) -> str:
        """The kind of error as a word for machines: `DataError` is `data`, `NotFoundError` is `not-found`."""
        return _get_code(type(self))


class UsageError(NewsbertError):
    """An invalid call or configuration (exit code 2)."""

    exit_code = 2


class DataError(NewsbertError):
    """Labelled rows that cannot be used for training as they are."""


class ModelError(NewsbertError):
    """A base model or a bundle that is missing, broken or not what it claims to be."""


class DivergedError(NewsbertError):
    """A training loss that was not finite before there was a model to save."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "train with a lower --learning-rate")


class TrackingError(NewsbertError):
    """A failure of the tracking server or its registry."""

    examined = True


class RefusedError(TrackingError):
    """A refusal by the tracking server or the artifact store, which waiting does not change."""

    @property
    def code(self) -> str:
        """The code of `TrackingError`."""
        return _get_code(TrackingError)


class NotFoundError(NewsbertError):
    """A run, model or version that does not exist."""


class ServingError(NewsbertError):
    """A model server that did not start, answer or stop."""


class MachineError(ServingError):
    """A machine on which a model server cannot start as it is."""

    examined = True

    @property
    def code(self) -> str:
        """The code of `ServingError`: the difference does not matter to a program."""
        return _get_code(ServingError)


class BadRequestError(NewsbertError):
    """A request that a server refused because of its content."""


class EngineError(NewsbertError):
    """A container engine that is missing or failed."""

    examined = True


def first_line(error: BaseException) -> str:
    """Return the first line of an external error's message, or the error's class name if there is none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _get_code(kind: type[NewsbertError]) -> str:
    name = kind.__name__.removesuffix("Error")
    words = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")
    return "failed" if words == "newsbert" else words


def from_document(document: dict[str, str | None]) -> NewsbertError:
    """Rebuild the error that another newsbert has written with `--json`, from its kind, message and hint."""
    kinds: dict[str, type[NewsbertError]] = {_get_code(kind): kind for kind in NewsbertError.__subclasses__()}
    kind = kinds.get(str(document["code"]), NewsbertError)
    error = kind.__new__(kind)
    # Subclasses may have other parameters than message and hint.
    NewsbertError.__init__(error, str(document["message"]), document["hint"])
    return error
