"""The errors a user can act on.

Every one says what is wrong, with the value, and what to do about it. Anything else that is raised is a bug of ours
and keeps its traceback.
"""


class NewsbertError(Exception):
    """It could not be done (exit code 1).

    Args:
        message: What is wrong, with the value that is wrong.
        hint: What to do about it: a command to run where there is one.
    """

    exit_code = 1
    examined = False
    """Whether `newsbert doctor` looks for the cause of such errors."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        """Travel between processes; not all kinds are made from message and hint."""
        return from_document, (self.document(),)

    def document(self) -> dict[str, str | None]:
        """What `--json` shows of it."""
        return {"code": self.code, "message": self.message, "hint": self.hint}

    @property
    def code(self) -> str:
        """The kind of error as a word for machines: `DataError` is `data`, `NotFoundError` is `not-found`."""
        return _code(type(self))


class UsageError(NewsbertError):
    """The call or the configuration is wrong (exit code 2)."""

    exit_code = 2


class DataError(NewsbertError):
    """The labelled rows cannot be trained on as they are."""


class ModelError(NewsbertError):
    """A base model or a bundle is missing, broken or not what it claims to be."""


class DivergedError(NewsbertError):
    """The loss of a training was no finite number before there was anything to keep."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "train with a lower --learning-rate")


class TrackingError(NewsbertError):
    """The tracking server or its registry could not do it."""

    examined = True


class RefusedError(TrackingError):
    """The tracking server or the artifact store refuses it, and waiting does not change that."""

    @property
    def code(self) -> str:
        """That of its kind."""
        return _code(TrackingError)


class NotFoundError(NewsbertError):
    """There is no such run, model or version."""


class ServingError(NewsbertError):
    """A model server did not start, answer or stop."""


class MachineError(ServingError):
    """A model server cannot start on this machine as it is."""

    examined = True

    @property
    def code(self) -> str:
        """That of its kind: for a machine the difference says nothing."""
        return _code(ServingError)


class BadRequestError(NewsbertError):
    """A server refused a request because of what it holds."""


class EngineError(NewsbertError):
    """The container engine is missing or could not do it."""

    examined = True


def first_line(error: BaseException) -> str:
    """The first line of what somebody else's error says; its kind, if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _code(kind: type[NewsbertError]) -> str:
    name = kind.__name__.removesuffix("Error")
    words = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")
    return "failed" if words == "newsbert" else words


def from_document(document: dict[str, str | None]) -> NewsbertError:
    """The error that another newsbert has written with `--json`: its kind, message and hint."""
    kinds: dict[str, type[NewsbertError]] = {_code(kind): kind for kind in NewsbertError.__subclasses__()}
    kind = kinds.get(str(document["code"]), NewsbertError)
    error = kind.__new__(kind)
    NewsbertError.__init__(error, str(document["message"]), document["hint"])  # not all kinds are made from these two
    return error
