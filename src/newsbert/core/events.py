"""What happens while a model is trained."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Phase:
    """Training went on to another part of its work, such as `exporting`."""

    name: str


@dataclass(frozen=True)
class Note:
    """Something the user should know, such as rows that were left out."""

    message: str


@dataclass(frozen=True)
class Progress:
    """So many of all rows are done in the phase of this name."""

    name: str
    done: int
    total: int


@dataclass(frozen=True)
class Step:
    """An optimizer step was made; `loss` is the mean since the last report, `None` before the first."""

    step: int
    total_steps: int
    epoch: float
    loss: float | None
    learning_rate: float | None
    seconds_left: float
    report: bool = False
    """Whether `loss` is a new one."""


@dataclass(frozen=True)
class Evaluation:
    """The validation rows were scored at a step; `best` tells whether what it found is kept from then on."""

    step: int
    epoch: float
    accuracy: float
    f1_macro: float
    loss: float
    best: bool


@dataclass
class History:
    """What was reported while training, for the learning curves."""

    steps: list[Step] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)


@dataclass(frozen=True)
class Resumed:
    """A training goes on behind a step; `history` is what was reported until then."""

    step: int
    history: History


Event = Phase | Note | Progress | Step | Evaluation | Resumed
