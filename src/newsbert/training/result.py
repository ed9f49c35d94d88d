"""The result of a training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from newsbert.evaluation.metrics import Scores
from newsbert.evaluation.review import Threshold

if TYPE_CHECKING:
    from newsbert.tracking.registry import ModelVersionRef
    from newsbert.training.baseline import BaselineReport


@dataclass(frozen=True)
class TrainResult:
    """A finished training.

    Attributes:
        bundle: Directory of the bundle.
        run_id: The MLflow run.
        scores: On the test rows.
        seconds: Time spent training, evaluations included.
        texts_per_second: How fast the graph that ships answered the test rows.
        baseline: TF-IDF with logistic regression on the same rows.
        suspected_label_errors: Training rows whose labels look wrong; the run has a table of them.
        stopped_early: Whether it was asked to stop before the last step.
        diverged_at: The step whose loss was no finite number, where one was: the model is an earlier one.
        version: The registered version, if one was asked for.
        review: The threshold below which a person has to see an answer, and behind it those for other precisions.
    """

    bundle: Path
    run_id: str
    scores: Scores
    seconds: float
    texts_per_second: float
    baseline: "BaselineReport"
    suspected_label_errors: int
    stopped_early: bool
    diverged_at: int | None
    version: "ModelVersionRef | None"
    review: Sequence[Threshold]

    @property
    def metrics(self) -> dict[str, float]:
        """Scores on the test rows by name."""
        return self.scores.metrics
