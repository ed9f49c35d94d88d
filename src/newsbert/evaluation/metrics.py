"""Scores of predictions: pure functions of arrays."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from newsbert.core.types import FloatArray, IntArray, LabelIds

CALIBRATION_BINS = 15
_MOST_TEMPERATURE = 100.0


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
        f1_macro: Mean F1 of the classes that the rows have, every class counting the same.
        loss: Mean negative log-likelihood of the true label, in nats.
        per_class: By label name, in label order.
        confusion: Rows by (true label, predicted label).
        calibration_error: How far the predicted label's probability is from its being right: see `reliability`.
    """

    accuracy: float
    f1_macro: float
    loss: float
    per_class: dict[str, ClassScores]
    confusion: IntArray
    calibration_error: float

    @property
    def metrics(self) -> dict[str, float]:
        """The figures over all classes, by name."""
        names = ("accuracy", "f1_macro", "loss", "calibration_error")
        return {name: getattr(self, name) for name in names}

    def report(self) -> str:
        """The scores of each class as JSON."""
        per_class = {name: asdict(each) for name, each in self.per_class.items()}
        return json.dumps(per_class, indent=2, ensure_ascii=False)

    def confused(self, most: int) -> list[tuple[str, str, int]]:
        """The pairs of true and predicted label that are mistaken most often, with how many rows are."""
        names = list(self.per_class)
        mistaken = self.confusion * (1 - np.eye(len(names), dtype=np.int64))
        worst = np.argsort(-mistaken, axis=None, kind="stable")[:most]
        pairs = [(int(place) // len(names), int(place) % len(names)) for place in worst]
        return [(names[true], names[got], int(mistaken[true, got])) for true, got in pairs if mistaken[true, got]]


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


def score(probabilities: FloatArray, labels: LabelIds, label_names: Sequence[str]) -> Scores:
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
        f1_macro=float(f1[support > 0].mean()),
        loss=float(-np.log(np.maximum(likelihood, 1e-12)).mean()),
        per_class=per_class,
        confusion=confusion,
        calibration_error=calibration_error(reliability(probabilities, labels)),
    )


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
