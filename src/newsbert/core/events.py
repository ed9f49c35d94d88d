"""Events of a training."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Phase:
    """Start of another phase of training, such as `exporting`."""

    name: str


@dataclass(frozen=True)
class Note:
    """A message for the user, such as one about rows that were left out."""

    message: str


@dataclass(frozen=True)
class Progress:
    """Number of rows that are done in the phase of this name, out of all."""

    name: str
    done: int
    total: int


@dataclass(frozen=True)
class Step:
    """An optimizer step; `loss` is the mean since the last report, `None` before the first."""

    step: int
    total_steps: int
    epoch: float
    loss: float | None
    learning_rate: float | None
    seconds_left: float
    report: bool = False
    """True if `loss` is a new one."""


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of the validation rows at a step; `best` is true if the weights of this step are retained."""

    step: int
    epoch: float
    accuracy: float
    f1_macro: float
    loss: float
    best: bool


@dataclass
class History:
    """Steps and evaluations reported during training, for the learning curves."""

    steps: list[Step] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)


@dataclass(frozen=True)
class Resumed:
    """Continuation of a training after a step; `history` has the events reported until then."""

    step: int
    history: History


Event = Phase | Note | Progress | Step | Evaluation | Resumed


def ignore(_event: Event) -> None:
    """Ignore an event."""


def never() -> bool:
    """Return `False`: there is no reason to stop."""
    return False
