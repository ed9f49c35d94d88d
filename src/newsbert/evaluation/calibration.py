"""Calibration: reliability of probabilities, and temperature scaling."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from newsbert.core.types import FloatArray, LabelIds

CALIBRATION_BINS = 15

_MAX_TEMPERATURE = 100.0


@dataclass(frozen=True)
class Bin:
    """Rows whose predicted labels have similar probabilities.

    Attributes:
        fraction: Fraction of all rows.
        confidence: Mean probability of the predicted labels.
        accuracy: Fraction of the bin's rows whose predicted label is right.
    """

    fraction: float
    confidence: float
    accuracy: float


def softmax(logits: FloatArray, temperature: float = 1.0) -> FloatArray:
    """Return probabilities `(rows, num_labels)` of `logits` of the same shape, divided by `temperature`."""
    scaled = logits.astype(np.float32) / np.float32(temperature)
    exponentials = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True), dtype=np.float32)


def reliability(probabilities: FloatArray, labels: LabelIds, bins: int = CALIBRATION_BINS) -> list[Bin]:
    """Group rows by the probability of their predicted label, in bins of equal width, without the empty ones.

    Args:
        probabilities: `(rows, num_labels)`.
        labels: True ids, `(rows,)`.
        bins: Number of bins.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == np.asarray(labels)
    bin_ids = np.minimum((confidence * bins).astype(int), bins - 1)
    masks = [mask for bin_id in range(bins) if (mask := bin_ids == bin_id).any()]
    return [Bin(float(mask.mean()), float(confidence[mask].mean()), float(right[mask].mean())) for mask in masks]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error: the mean difference between confidence and accuracy over all rows.

    Source: https://arxiv.org/abs/1706.04599, section 2.
    """
    return sum(bin_.fraction * abs(bin_.accuracy - bin_.confidence) for bin_ in bins)


def fit_temperature(logits: FloatArray, labels: LabelIds) -> float:
    """Return the temperature that maximizes the likelihood of held-out labels, or 1.0 if there are no rows.

    If all of a few rows are right, the most likely temperature is 0. So the weight of a true label is slightly less
    than 1, as in Platt's method. The more rows there are, the further they can move the temperature.

    Args:
        logits: `(rows, num_labels)`.
        labels: True ids, `(rows,)`.

    Source: https://arxiv.org/abs/1706.04599; for the targets Platt, Probabilistic outputs for support vector machines.
    """
    rows, classes = logits.shape
    if not rows:
        return 1.0
    smoothing = 1 / (rows + 2)
    targets = np.full(logits.shape, smoothing / max(1, classes - 1))
    targets[np.arange(rows), np.asarray(labels)] = 1 - smoothing
    target_logit = float((targets * logits).sum(axis=1).mean())
    # The likelihood is concave in the inverse of the temperature: bisect the interval around its only maximum.
    low, high, inverse = 1 / _MAX_TEMPERATURE, _MAX_TEMPERATURE, 1.0
    for _ in range(60):
        inverse = (low * high) ** 0.5
        expected_logit = float((softmax(logits, 1 / inverse) * logits).sum(axis=1).mean())
        low, high = (inverse, high) if expected_logit < target_logit else (low, inverse)
    return 1 / inverse
