"""The mix of a model and its companion, and the threshold above which the companion answers alone.

All functions take the logarithms of probabilities `(rows, num_labels)` of rows that neither was fitted on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from newsbert.core.types import FloatArray
from newsbert.evaluation.calibration import fit_temperature, softmax
from newsbert.evaluation.review_threshold import SCORE_DECIMALS

_RATIOS = np.geomspace(0.1, 3, 30)
_USUAL_RATIO, _RATIO_SPREAD = 0.6, 0.5
"""Ratio of the companion's weight to the model's that few rows can hardly change, and the spread of its logarithm.

benchmarks/two_tiers.py prints the best ratios of trainings on AG News rows.
"""

_THRESHOLDS = (0.995, 0.99, 0.98, 0.97, 0.96, 0.95, 0.94, 0.92, 0.9, 0.88, 0.86, 0.84, 0.82, 0.8, 0.78, 0.76, 0.74,
               0.72, 0.7, 0.67, 0.64, 0.61, 0.58, 0.55, 0.5)  # fmt: skip
"""Candidates from the highest down, whatever the rows are.

Tests in a fixed order, up to the first that fails, need no correction for their number.
"""

_ONE_SIDED_95 = 1.6449
"""The 95th percentile of the normal distribution."""


@dataclass(frozen=True)
class Mix:
    """A log-linear mix.

    Attributes:
        model_weight: Weight of the logarithm of the model's probability.
        companion_weight: Weight of the logarithm of the companion's probability.
    """

    model_weight: float
    companion_weight: float

    def apply(self, model_logs: FloatArray, companion_logs: FloatArray) -> FloatArray:
        """Return the probabilities of the mix: `(rows, num_labels)`."""
        return softmax(self.model_weight * model_logs + self.companion_weight * companion_logs)


@dataclass(frozen=True)
class CascadeThreshold:
    """A threshold and its effect on the rows that it was chosen on.

    Attributes:
        threshold: Probability from which the companion answers alone; `None` if it never does.
        loss: Upper 95% bound of the loss of accuracy compared with the mix, in percentage points.
        coverage: Fraction of the rows that the companion answers.
    """

    threshold: float | None
    loss: float
    coverage: float


def fit_mix(model_logs: FloatArray, companion_logs: FloatArray, labels: Sequence[int]) -> Mix | None:
    """Fit the weights by the likelihood of the labels; few rows change the usual ratio of the weights only a little.

    Source: https://doi.org/10.1214/ss/1177013825 (Genest and Zidek) for the log-linear mix.

    Returns:
        The likeliest mix of those that are not less accurate than the model by more than a standard error, or `None`
        if all are.
    """
    truth = np.asarray(labels, dtype=np.int64)
    rows = np.arange(len(truth))
    best, best_loss = None, math.inf
    for ratio in _RATIOS.tolist():
        logits = model_logs + ratio * companion_logs
        temperature = fit_temperature(logits, labels)
        likelihood = softmax(logits, temperature)[rows, truth].astype(np.float64)
        prior = (math.log(ratio / _USUAL_RATIO) / _RATIO_SPREAD) ** 2 / 2
        loss = prior - float(np.log(likelihood.clip(1e-12)).sum())
        mix = Mix(1 / temperature, ratio / temperature)
        worse, better = _count_differences(model_logs, mix.apply(model_logs, companion_logs), truth)
        if loss < best_loss and worse - better <= math.sqrt(worse + better):
            best, best_loss = mix, loss
    return best


def choose_cascade_threshold(
    mixed: FloatArray, companion_logs: FloatArray, labels: Sequence[int], max_loss: float
) -> CascadeThreshold:
    """Return the lowest threshold at which the companion's answers lose little accuracy compared with the mix.

    Args:
        mixed: Probabilities of the mix, `(rows, num_labels)`.
        companion_logs: Logarithms of the companion's probabilities, `(rows, num_labels)`.
        labels: True ids, `(rows,)`.
        max_loss: Largest accepted upper 95% bound of the loss, in percentage points.
    """
    chosen = CascadeThreshold(None, 0.0, 0.0)
    truth = np.asarray(labels, dtype=np.int64)
    for threshold in _THRESHOLDS:
        answered = find_confident(companion_logs, threshold)
        worse, better = _count_differences(mixed[answered], companion_logs[answered], truth[answered])
        loss = 100 * bound_difference(worse, better, len(truth)) if len(truth) else math.inf
        if loss > max_loss:
            break
        if answered.any():
            chosen = CascadeThreshold(threshold, loss, float(answered.mean()))
    return chosen


def find_confident(companion_logs: FloatArray, threshold: float) -> NDArray[np.bool_]:
    """Return which texts the companion answers alone: `(rows,)`.

    Probabilities are rounded before they are compared, because processors differ in the last digit of an exponential.

    Args:
        companion_logs: Logarithms of the companion's probabilities, `(rows, num_labels)`.
        threshold: Probability from which it answers alone.
    """
    scores = np.exp(companion_logs.max(axis=1, initial=-np.inf).astype(np.float64))
    return np.asarray(np.round(scores, SCORE_DECIMALS) >= threshold)


def bound_difference(worse: int, better: int, rows: int) -> float:
    """Return the upper 95% bound of the difference of two accuracies on the same rows.

    Args:
        worse: Number of rows that only the first classifier has right.
        better: Number of rows that only the second has right.
        rows: Number of all rows.

    Source: https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B (Tango, score interval)
    """
    low, high = (worse - better) / rows, 1.0
    for _ in range(50):
        difference = (low + high) / 2
        # The likeliest fraction of rows that only the second has right, if this is the difference.
        linear = (2 * rows - worse + better) * difference - worse - better
        constant = better * difference * (1 - difference)
        fraction = (math.sqrt(linear * linear + 8 * rows * constant) - linear) / (4 * rows)
        variance = rows * (2 * fraction + difference * (1 - difference))
        deviation = (rows * difference - worse + better) / math.sqrt(variance) if variance > 0 else math.inf
        low, high = (low, difference) if deviation > _ONE_SIDED_95 else (difference, high)
    return high


def _count_differences(first: FloatArray, second: FloatArray, labels: NDArray[np.int64]) -> tuple[int, int]:
    """Return the numbers of rows that only the first has right, and only the second."""
    first_right, second_right = first.argmax(axis=1) == labels, second.argmax(axis=1) == labels
    return int((first_right & ~second_right).sum()), int((second_right & ~first_right).sum())
