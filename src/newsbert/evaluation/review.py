"""Which answers a person should see: those whose score is below a threshold; how it is chosen, and what it does."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from newsbert.core.types import FloatArray

NONE, ALL = 0.0, 1.0
"""Thresholds below which no answer is, and, as scores may be 1, every answer."""

PRECISIONS = (0.9, 0.95, 0.98, 0.99)
"""Precisions that a training reports thresholds for."""

SCORE_DECIMALS = 6
"""Of a score as it is answered. What is compared with a threshold is that, so whoever sees the answer can tell why."""

STANDARD_ERRORS = 1.0
"""The margin by which a precision is to be reached; benchmarks/review.py shows what it is good for."""


@dataclass(frozen=True)
class ReviewStats:
    """What a threshold does to rows whose labels are known.

    Attributes:
        share: Of all rows, those that go to a person.
        accuracy: Share of the others that is right; none if there are no others.
    """

    share: float
    accuracy: float | None


@dataclass(frozen=True)
class Threshold:
    """A threshold, and what it does.

    Attributes:
        precision: The share of answers above it that is to be right; none if it was not chosen for one.
        below: Scores below it go to a person.
        validation: On the rows that it was chosen on.
        test: On the test rows.
    """

    precision: float | None
    below: float
    validation: ReviewStats
    test: ReviewStats


@dataclass(frozen=True)
class RiskCoverageCurve:
    """What every threshold does that tells some rows from others, from the highest down.

    Attributes:
        below: The thresholds; each is a score that was seen.
        kept: Rows with that score or a higher one.
        right: Those of them that are.
    """

    below: NDArray[np.float64]
    kept: NDArray[np.int64]
    right: NDArray[np.int64]

    @classmethod
    def of(cls, probabilities: FloatArray, labels: Sequence[int]) -> "RiskCoverageCurve":
        """Sort rows by score.

        Args:
            probabilities: `(rows, num_labels)`.
            labels: True ids, `(rows,)`.
        """
        below, places = np.unique(-_scores(probabilities), return_inverse=True)
        kept = np.bincount(places, minlength=len(below)).cumsum()
        right = np.bincount(places, weights=_right(probabilities, labels), minlength=len(below)).cumsum()
        return cls(-below, kept, right.astype(np.int64))


def needs_review(scores: ArrayLike, below: float) -> NDArray[np.bool_]:
    """Tell which answers go to a person, from their scores. Every comparison of the two is this one.

    Args:
        scores: The predicted labels' probabilities.
        below: The threshold: 0 for no answer, 1 for all of them.
    """
    rounded = np.round(np.asarray(scores, dtype=np.float64), SCORE_DECIMALS)
    return np.asarray((rounded < below) | (below >= ALL))


def choose_threshold(
    probabilities: FloatArray, labels: Sequence[int], precision: float, margin: float = STANDARD_ERRORS
) -> float:
    """Return the lowest score such that of the rows that have it or more the wanted share is right.

    Right by a margin: of few rows, or of many thresholds the best, the share that is right would promise more than
    other rows keep. Wilson's bound is that of a share near 1 too, and takes ten rows without a mistake for no more
    than 0.91.

    Args:
        probabilities: `(rows, num_labels)`, of rows that the model was not fitted on.
        labels: True ids, `(rows,)`.
        precision: The wanted share, from 0 to 1.
        margin: In standard errors.

    Returns:
        The lowest score of all rows if they are right so often: of lower ones nothing is known. 0 if no share is
        wanted; 1 if no such score was seen.

    Source: https://doi.org/10.1080/01621459.1927.10502953 (Wilson)
    """
    if precision <= 0:
        return NONE
    curve = RiskCoverageCurve.of(probabilities, labels)
    (reached,) = np.nonzero(_least_share(curve.right, curve.kept, margin) >= precision)
    if not len(reached):
        return ALL
    return float(curve.below[reached[-1]])


def review_stats(probabilities: FloatArray, labels: Sequence[int], below: float) -> ReviewStats:
    """What a threshold does to rows.

    Args:
        probabilities: `(rows, num_labels)`.
        labels: True ids, `(rows,)`.
        below: The threshold.
    """
    if not len(labels):
        return ReviewStats(0.0, None)
    kept = ~needs_review(probabilities.max(axis=1), below)
    right = _right(probabilities, labels)[kept]
    return ReviewStats(float(1 - kept.mean()), float(right.mean()) if len(right) else None)


def thresholds(
    validation: tuple[FloatArray, Sequence[int]],
    test: tuple[FloatArray, Sequence[int]],
    precision: float,
    below: float | None = None,
) -> list[Threshold]:
    """The threshold that answers are to be compared with, and behind it those of `PRECISIONS`.

    Args:
        validation: Probabilities `(rows, num_labels)` and true ids of the rows that thresholds are chosen on.
        test: The same of rows that show what they are worth.
        precision: The share of the answers that no person sees which is to be right.
        below: The threshold, if it is given instead.
    """

    def at(wanted: float | None, value: float) -> Threshold:
        return Threshold(wanted, value, review_stats(*validation, value), review_stats(*test, value))

    first = at(precision, choose_threshold(*validation, precision)) if below is None else at(None, below)
    return [first, *(at(wanted, choose_threshold(*validation, wanted)) for wanted in PRECISIONS)]


def _scores(probabilities: FloatArray) -> NDArray[np.float64]:
    scores: NDArray[np.float64] = np.round(probabilities.max(axis=1).astype(np.float64), SCORE_DECIMALS)
    return scores


def _right(probabilities: FloatArray, labels: Sequence[int]) -> NDArray[np.bool_]:
    return np.asarray(probabilities.argmax(axis=1) == np.asarray(labels))


def _least_share(right: NDArray[np.int64], rows: NDArray[np.int64], z: float) -> NDArray[np.float64]:
    """Wilson's lower bound, `z` standard errors down, of the share of which `right` of so many `rows` are a sample."""
    share = right / rows
    spread = z * np.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return np.asarray((share + z * z / (2 * rows) - spread) / (1 + z * z / rows))
