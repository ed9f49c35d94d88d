"""Review thresholds: a person sees the answers with scores below them; their choice and their effect."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from newsbert.core.types import FloatArray

NONE, ALL = 0.0, 1.0
"""Thresholds for the review of no answer and of all answers, including those with the score 1."""

PRECISIONS = (0.9, 0.95, 0.98, 0.99)
"""Precisions for which a training reports thresholds."""

SCORE_DECIMALS = 6
"""Decimals of a score in an answer.

A threshold is compared with the rounded score, so that the answer explains the decision.
"""

STANDARD_ERRORS = 1.0
"""The margin by which a precision must be reached; benchmarks/review.py measures its benefit."""


@dataclass(frozen=True)
class ReviewStats:
    """The effect of a threshold on rows with known labels.

    Attributes:
        review_rate: Fraction of all rows that is flagged for review.
        accuracy: Accuracy on the other rows; `None` if there are no others.
    """

    review_rate: float
    accuracy: float | None


@dataclass(frozen=True)
class Threshold:
    """A threshold and its effect.

    Attributes:
        precision: The fraction of answers above it that must be right; `None` if it was not chosen for one.
        below: Scores below it go to a person.
        validation: Its effect on the rows on which it was chosen.
        test: Its effect on the test rows.
    """

    precision: float | None
    below: float
    validation: ReviewStats
    test: ReviewStats


@dataclass(frozen=True)
class RiskCoverageCurve:
    """The effect of all thresholds that separate the rows, from the highest down.

    Attributes:
        below: The thresholds, which are the scores that occur.
        num_answered: Numbers of rows with that score or a higher one.
        num_correct: Numbers of correct answers to those rows.
    """

    below: NDArray[np.float64]
    num_answered: NDArray[np.int64]
    num_correct: NDArray[np.int64]

    @classmethod
    def of(cls, probabilities: FloatArray, labels: Sequence[int]) -> "RiskCoverageCurve":
        """Build the curve of rows, sorted by score.

        Args:
            probabilities: `(rows, num_labels)`.
            labels: True ids, `(rows,)`.
        """
        below, groups = np.unique(-_round_scores(probabilities), return_inverse=True)
        cumulative_rows = np.bincount(groups, minlength=len(below)).cumsum()
        right = np.bincount(groups, weights=_find_correct(probabilities, labels), minlength=len(below)).cumsum()
        return cls(-below, cumulative_rows, right.astype(np.int64))


def needs_review(scores: ArrayLike, below: float) -> NDArray[np.bool_]:
    """Return which answers go to a person, from their scores; all comparisons of scores with thresholds use this.

    Args:
        scores: The predicted labels' probabilities.
        below: The threshold: 0 for no answer, 1 for all of them.
    """
    rounded = np.round(np.asarray(scores, dtype=np.float64), SCORE_DECIMALS)
    return np.asarray((rounded < below) | (below >= ALL))


def choose_threshold(
    probabilities: FloatArray, labels: Sequence[int], precision: float, margin: float = STANDARD_ERRORS
) -> float:
    """Return the lowest score at or above which the required fraction of rows is right.

    The fraction must be reached by a margin. For few rows, or for the best of many thresholds, the observed fraction is
    higher than on other rows. Wilson's bound is also valid for fractions near 1: for ten rows without a mistake it is
    at most 0.91.

    Args:
        probabilities: `(rows, num_labels)`, of rows that the model was not fitted on.
        labels: True ids, `(rows,)`.
        precision: The required fraction, from 0 to 1.
        margin: In standard errors.

    Returns:
        The lowest score of all rows if all together reach the fraction: nothing is known about lower scores. 0 if the
        required fraction is 0; 1 if no score reaches it.

    Source: https://doi.org/10.1080/01621459.1927.10502953 (Wilson)
    """
    if precision <= 0:
        return NONE
    curve = RiskCoverageCurve.of(probabilities, labels)
    (reached,) = np.nonzero(_compute_wilson_bound(curve.num_correct, curve.num_answered, margin) >= precision)
    if not len(reached):
        return ALL
    return float(curve.below[reached[-1]])


def review_stats(probabilities: FloatArray, labels: Sequence[int], below: float) -> ReviewStats:
    """Return the effect of a threshold on rows.

    Args:
        probabilities: `(rows, num_labels)`.
        labels: True ids, `(rows,)`.
        below: The threshold.
    """
    if not len(labels):
        return ReviewStats(0.0, None)
    retained = ~needs_review(probabilities.max(axis=1), below)
    right = _find_correct(probabilities, labels)[retained]
    return ReviewStats(float(1 - retained.mean()), float(right.mean()) if len(right) else None)


def thresholds(
    validation: tuple[FloatArray, Sequence[int]],
    test: tuple[FloatArray, Sequence[int]],
    precision: float,
    below: float | None = None,
) -> list[Threshold]:
    """Return the threshold for answers, followed by those for `PRECISIONS`.

    Args:
        validation: Probabilities `(rows, num_labels)` and true ids of the rows on which thresholds are chosen.
        test: The same for the rows on which thresholds are evaluated.
        precision: The required fraction of right answers among those that no person sees.
        below: The threshold, to use it instead of choosing one.
    """

    def at(target: float | None, value: float) -> Threshold:
        return Threshold(target, value, review_stats(*validation, value), review_stats(*test, value))

    first = at(precision, choose_threshold(*validation, precision)) if below is None else at(None, below)
    return [first, *(at(required, choose_threshold(*validation, required)) for required in PRECISIONS)]


def _round_scores(probabilities: FloatArray) -> NDArray[np.float64]:
    scores: NDArray[np.float64] = np.round(probabilities.max(axis=1).astype(np.float64), SCORE_DECIMALS)
    return scores


def _find_correct(probabilities: FloatArray, labels: Sequence[int]) -> NDArray[np.bool_]:
    return np.asarray(probabilities.argmax(axis=1) == np.asarray(labels))


def _compute_wilson_bound(right: NDArray[np.int64], rows: NDArray[np.int64], z: float) -> NDArray[np.float64]:
    """Return Wilson's lower bound of the fraction `right / rows`, `z` standard errors down."""
    fraction = right / rows
    spread = z * np.sqrt(fraction * (1 - fraction) / rows + z * z / (4 * rows * rows))
    return np.asarray((fraction + z * z / (2 * rows) - spread) / (1 + z * z / rows))
