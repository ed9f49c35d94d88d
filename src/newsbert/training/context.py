"""Context of a training: settings, rows, base model and callbacks."""

from collections.abc import Callable
from dataclasses import dataclass

from newsbert.core.events import Event, ignore, never
from newsbert.core.settings import TrainSettings
from newsbert.data.dataset import Dataset
from newsbert.training.base_model import BaseModel


@dataclass(frozen=True)
class TrainingContext:
    """Context that the steps of a training work with.

    Attributes:
        settings: Tuning method, duration and hyperparameters.
        dataset: Labelled rows.
        base_model: The encoder.
        on_event: Called with every event.
        should_stop: Called after every step; if it returns true, the training evaluates and ends.
    """

    settings: TrainSettings
    dataset: Dataset
    base_model: BaseModel
    on_event: Callable[[Event], None] = ignore
    should_stop: Callable[[], bool] = never
