"""Calibration: reliability of probabilities, and the temperature that mends it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from newsbert.core.types import FloatArray, LabelIds

CALIBRATION_BINS = 15

_MOST_TEMPERATURE = 100.0


@dataclass(frozen=True)
class Bin:
    """Rows whose predicted labels have about the same probability.

    Attributes:
        share: Of all rows.
        confidence: Their mean probability of the predicted label.
        accuracy: Share of them whose predicted label is right.
    """

    share: float
    confidence: float
    accuracy: float


def softmax(logits: FloatArray, temperature: float = 1.0) -> FloatArray:
    """Probabilities `(rows, num_labels)` of `logits` of the same shape, divided by `temperature`."""
    scaled = logits.astype(np.float32) / np.float32(temperature)
    exponentials = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True), dtype=np.float32)


def reliability(probabilities: FloatArray, labels: LabelIds, bins: int = CALIBRATION_BINS) -> list[Bin]:
    """Rows by the probability of their predicted label, in equally wide bins, without the empty ones.

    Args:
        probabilities: `(rows, num_labels)`.
        labels: True ids, `(rows,)`.
        bins: How many.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == np.asarray(labels)
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    held = [rows for place in range(bins) if (rows := places == place).any()]
    return [Bin(float(rows.mean()), float(confidence[rows].mean()), float(right[rows].mean())) for rows in held]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: by how much confidence and accuracy differ, on the average of all rows.

    Source: https://arxiv.org/abs/1706.04599, section 2.
    """
    return sum(each.share * abs(each.accuracy - each.confidence) for each in bins)


def fit_temperature(logits: FloatArray, labels: LabelIds) -> float:
    """The temperature that makes the true labels of held-out rows likeliest, or 1.0 of no rows.

    As few rows are easily all right, whose likeliest temperature would be 0, each true label counts a little less than
    wholly, as Platt has it: so the more rows, the further they can move it.

    Args:
        logits: `(rows, num_labels)`.
        labels: True ids, `(rows,)`.

    Source: https://arxiv.org/abs/1706.04599; for the targets Platt, Probabilistic outputs for support vector machines.
    """
    rows, classes = logits.shape
    if not rows:
        return 1.0
    doubt = 1 / (rows + 2)
    targets = np.full(logits.shape, doubt / max(1, classes - 1))
    targets[np.arange(rows), np.asarray(labels)] = 1 - doubt
    wanted = float((targets * logits).sum(axis=1).mean())
    # The likelihood is concave in the inverse of the temperature: halve the interval around its only top.
    low, high, inverse = 1 / _MOST_TEMPERATURE, _MOST_TEMPERATURE, 1.0
    for _ in range(60):
        inverse = (low * high) ** 0.5
        expected = float((softmax(logits, 1 / inverse) * logits).sum(axis=1).mean())
        low, high = (inverse, high) if expected < wanted else (low, inverse)
    return 1 / inverse
