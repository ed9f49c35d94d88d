"""Scores of predictions, as pure functions of arrays."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from newsbert.core.types import FloatArray, IntArray, LabelIds
from newsbert.evaluation.calibration import calibration_error, reliability


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
        accuracy: Fraction of rows with the right label.
        f1_macro: Mean F1 of the classes that the rows have, with equal weights.
        loss: Mean negative log-likelihood of the true label, in nats.
        per_class: Scores by label name, in label order.
        confusion: Rows by (true label, predicted label).
        calibration_error: Difference between the predicted label's probability and its accuracy: see `reliability`.
    """

    accuracy: float
    f1_macro: float
    loss: float
    per_class: dict[str, ClassScores]
    confusion: IntArray
    calibration_error: float

    @property
    def metrics(self) -> dict[str, float]:
        """The scores over all classes, by name."""
        names = ("accuracy", "f1_macro", "loss", "calibration_error")
        return {name: getattr(self, name) for name in names}

    def report(self) -> str:
        """Return the scores by class as JSON."""
        per_class = {name: asdict(class_scores) for name, class_scores in self.per_class.items()}
        return json.dumps(per_class, indent=2, ensure_ascii=False)

    def confused(self, most: int) -> list[tuple[str, str, int]]:
        """Return the pairs of true and predicted label that are confused most often, with their numbers of rows."""
        names = list(self.per_class)
        mistaken = self.confusion * (1 - np.eye(len(names), dtype=np.int64))
        worst = np.argsort(-mistaken, axis=None, kind="stable")[:most]
        pairs = [(int(cell) // len(names), int(cell) % len(names)) for cell in worst]
        return [
            (names[true], names[predicted], int(mistaken[true, predicted]))
            for true, predicted in pairs
            if mistaken[true, predicted]
        ]


def score(probabilities: FloatArray, labels: LabelIds, label_names: Sequence[str]) -> Scores:
    """Score predictions.

    Args:
        probabilities: `(rows, num_labels)`.
        labels: True ids, `(rows,)`.
        label_names: Names in the order of the ids.

    Raises:
        ValueError: If there are no rows, the shapes do not match, or an id has no label.
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
