"""The result of a training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from newsbert.evaluation.metrics import Scores
from newsbert.evaluation.review_threshold import Threshold

if TYPE_CHECKING:
    from newsbert.tracking.registry import ModelVersionRef
    from newsbert.training.baseline import BaselineReport


@dataclass(frozen=True)
class TrainResult:
    """A finished training.

    Attributes:
        bundle: Directory of the bundle.
        run_id: The MLflow run.
        scores: Scores on the test rows.
        seconds: Time spent training, evaluations included.
        texts_per_second: Speed of the graph that ships on the test rows.
        baseline: TF-IDF with logistic regression on the same rows.
        suspected_label_errors: Training rows whose labels look wrong; the run has a table of them.
        stopped_early: True if a stop was requested before the last step.
        diverged_at: The step whose loss was not finite, if any; the model is then an earlier one.
        version: The registered version, if one was requested.
        review: The threshold below which a person has to see an answer, followed by those for other precisions.
        parts: Scores on the test rows of the encoder alone and of its companion alone; empty without a companion.
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
    parts: Mapping[str, Scores]

    @property
    def metrics(self) -> dict[str, float]:
        """Scores on the test rows by name."""
        return self.scores.metrics
