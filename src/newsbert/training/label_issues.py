"""Training rows whose labels look wrong, for review by a person.

The baseline selects candidates by cross-validation, since the model has already learned their labels. Then the model
must predict another label as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from cleanlab.filter import find_label_issues
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from newsbert.core.types import FloatArray, IntArray
from newsbert.data.dataset import Split
from newsbert.inference.runtime import Runtime
from newsbert.training.baseline import BaselineClassifier

MAX_ISSUES = 1_000
"""Maximum number of rows that the model checks, and that are reported."""

_FOLDS = 5
_SHOWN_CHARACTERS = 1_000


@dataclass(frozen=True)
class LabelIssue:
    """A row whose label differs from the prediction of the model.

    Attributes:
        text: Beginning of the text.
        label: Label in the data.
        model_label: Label that the model predicts.
        model_probability: The model's probability of its own label.
        label_probability: The model's probability of the label in the data.
    """

    text: str
    label: str
    model_label: str
    model_probability: float
    label_probability: float


def find_candidates(fitted: BaselineClassifier, seed: int) -> IntArray:
    """Return indices of training rows that the baseline doubts in cross-validation, the most doubtful first.

    Labels with fewer than five rows are left out: they have too few rows to judge.

    Source: https://arxiv.org/abs/1911.00068 (confident learning).
    """
    labels, counts = np.unique(fitted.labels, return_counts=True)
    eligible = np.flatnonzero(np.isin(fitted.labels, labels[counts >= _FOLDS]))
    classes, label_ids = np.unique(fitted.labels[eligible], return_inverse=True)
    if len(classes) < 2:
        return np.array([], dtype=np.int64)
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    classifier = fitted.classifier(len(label_ids) - len(label_ids) // _FOLDS)
    probabilities = cross_val_predict(
        classifier, fitted.features[eligible], label_ids, cv=folds, method="predict_proba"
    )
    issues = find_label_issues(label_ids, probabilities, return_indices_ranked_by="normalized_margin", n_jobs=1)
    return np.asarray(fitted.rows[eligible[issues]][:MAX_ISSUES])


def confirm(rows: IntArray, train: Split, label_names: Sequence[str], runtime: Runtime) -> list[LabelIssue]:
    """Return the rows whose labels the model contradicts as well, the most confident prediction first."""
    if not len(rows):
        return []
    texts = [train.texts[row] for row in rows.tolist()]
    return find_mistakes(texts, np.asarray(train.labels)[rows], runtime.predict_prepared(texts), label_names)


def find_mistakes(
    texts: Sequence[str], labels: IntArray, probabilities: FloatArray, label_names: Sequence[str]
) -> list[LabelIssue]:
    """Return the rows whose labels the model contradicts, the most confident prediction first.

    Args:
        texts: The rows' texts.
        labels: Their labels, `(rows,)`.
        probabilities: The model's predictions, `(rows, num_labels)`.
        label_names: Names in label order.
    """
    indices, predicted = np.arange(len(texts)), probabilities.argmax(axis=1)
    margin = probabilities[indices, predicted] - probabilities[indices, labels]
    return [
        LabelIssue(
            texts[index][:_SHOWN_CHARACTERS],
            label_names[labels[index]],
            label_names[predicted[index]],
            float(probabilities[index, predicted[index]]),
            float(probabilities[index, labels[index]]),
        )
        for index in np.argsort(-margin, kind="stable").tolist()
        if predicted[index] != labels[index]
    ][:MAX_ISSUES]
