"""Training as far as the tuned model: nothing is exported, logged or registered, which takes longer than a tiny one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from newsbert.core.events import Event, ignore, never
from newsbert.core.settings import TrainSettings
from newsbert.training import base_model, methods
from newsbert.training.checkpoints import Checkpoints
from newsbert.training.context import TrainingContext
from newsbert.training.fine_tuning import TrainedModel
from newsbert.training.rows import load_rows


def tune(
    on_event: Callable[[Event], None] = ignore,
    stop: Callable[[], bool] = never,
    checkpoints: Path | None = None,
    **settings: Any,
) -> TrainedModel:
    """Tune an encoder with these settings, as `newsbert.train` does; from the checkpoint, if there is one."""
    chosen = TrainSettings(**settings)
    rows, base = load_rows(chosen), base_model.find(chosen.base_model)
    context = TrainingContext(methods.choose(chosen, rows, base), rows, base, on_event, stop)
    return methods.tune_part(context, Checkpoints(checkpoints) if checkpoints else None)


def losses(trained: TrainedModel) -> list[tuple[int, float | None]]:
    """Return the losses that were reported, and those of the validation rows, with their steps."""
    history = trained.history
    return [
        *((report.step, report.loss) for report in history.steps),
        *((evaluation.step, evaluation.loss) for evaluation in history.evaluations),
    ]
