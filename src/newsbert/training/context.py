"""What the steps of a training work with."""

from collections.abc import Callable
from dataclasses import dataclass

from newsbert.core.events import Event
from newsbert.core.settings import TrainSettings
from newsbert.data.dataset import Dataset
from newsbert.training.base_model import BaseModel


def ignore(_event: Event) -> None:
    """Do nothing with an event."""


def never() -> bool:
    """Return that there is no reason to stop."""
    return False


@dataclass(frozen=True)
class TrainingContext:
    """What the steps of a training work with.

    Attributes:
        settings: What is tuned, for how long, and how.
        dataset: Labelled rows.
        base_model: The encoder.
        on_event: Called with what happens.
        should_stop: Called after every step; where it returns true, the training evaluates and ends.
    """

    settings: TrainSettings
    dataset: Dataset
    base_model: BaseModel
    on_event: Callable[[Event], None] = ignore
    should_stop: Callable[[], bool] = never
