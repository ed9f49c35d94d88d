"""Scores of predictions: pure functions of arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class; a ratio without a denominator is 0."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Scores:
    """Scores of predicted against true labels.

    Attributes:
        accuracy: Share of rows with the right label.
        f1_macro: Mean of the classes' F1, every class counting the same; classes in neither array count as 0.
        loss: Mean negative log-likelihood of the true label, in nats.
        per_class: By label name, in label order.
        confusion: Rows by (true label, predicted label).
    """

    accuracy: float
    f1_macro: float
    loss: float
    per_class: dict[str, ClassScores]
    confusion: IntArray


def score(probabilities: FloatArray, labels: Sequence[int], label_names: Sequence[str]) -> Scores:
    """Score predictions.

    Args:
        probabilities: `(rows, num_labels)`.
        labels: True ids, `(rows,)`.
        label_names: Names in the order of the ids.

    Raises:
        ValueError: If there are no rows, the arrays do not fit each other, or an id is of no label.
    """
    true = np.asarray(labels, dtype=np.int64)
    if len(true) == 0 or probabilities.shape != (len(true), len(label_names)):
        raise ValueError(f"cannot score {probabilities.shape} probabilities against {len(true)} labels")
    if true.min() < 0 or true.max() >= len(label_names):
        raise ValueError(f"cannot score label ids from {true.min()} to {true.max()} of {len(label_names)} labels")
    confusion = np.zeros((len(label_names), len(label_names)), dtype=np.int64)
    np.add.at(confusion, (true, probabilities.argmax(axis=1)), 1)
    hits = np.diagonal(confusion)
    precision = hits / np.maximum(confusion.sum(axis=0), 1)
    recall = hits / np.maximum(confusion.sum(axis=1), 1)
    f1 = 2 * precision * recall / np.where(precision + recall == 0, 1, precision + recall)
    support = confusion.sum(axis=1)
    likelihood = probabilities[np.arange(len(true)), true]
    per_class = {
        name: ClassScores(float(precision[i]), float(recall[i]), float(f1[i]), int(support[i]))
        for i, name in enumerate(label_names)
    }
    return Scores(
        accuracy=float(hits.sum() / len(true)),
        f1_macro=float(f1.mean()),
        loss=float(-np.log(np.maximum(likelihood, 1e-12)).mean()),
        per_class=per_class,
        confusion=confusion,
    )


def softmax(logits: FloatArray, temperature: float = 1.0) -> FloatArray:
    """Probabilities `(rows, num_labels)` of `logits` of the same shape, divided by `temperature`."""
    scaled = logits.astype(np.float32) / np.float32(temperature)
    exponentials = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True), dtype=np.float32)
