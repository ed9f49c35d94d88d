"""Training rows whose labels look wrong, to be looked at by a person.

The baseline doubts them first, in cross-validation, as the model has learnt their labels; then the model must give
another label as well.
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

MOST = 1_000
"""Rows that are asked the model about, and so told."""

_FOLDS = 5
_SHOWN_CHARACTERS = 1_000


@dataclass(frozen=True)
class LabelIssue:
    """A row that the model labels otherwise than it is.

    Attributes:
        text: Its beginning.
        label: As given.
        model_label: The model's.
        model_probability: The model's of its own label.
        label_probability: The model's of the given label.
    """

    text: str
    label: str
    model_label: str
    model_probability: float
    label_probability: float


def find_candidates(fitted: BaselineClassifier, seed: int) -> IntArray:
    """Indices of the training rows that the baseline doubts where it has not seen them, the most doubtful first.

    Labels with fewer than five rows are left out: nothing can be said of them.

    Source: https://arxiv.org/abs/1911.00068 (confident learning).
    """
    labels, counts = np.unique(fitted.labels, return_counts=True)
    judged = np.flatnonzero(np.isin(fitted.labels, labels[counts >= _FOLDS]))
    known, given = np.unique(fitted.labels[judged], return_inverse=True)
    if len(known) < 2:
        return np.array([], dtype=np.int64)
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    classifier = fitted.classifier(len(given) - len(given) // _FOLDS)
    probabilities = cross_val_predict(classifier, fitted.features[judged], given, cv=folds, method="predict_proba")
    found = find_label_issues(given, probabilities, return_indices_ranked_by="normalized_margin", n_jobs=1)
    return np.asarray(fitted.rows[judged[found]][:MOST])


def confirm(rows: IntArray, train: Split, label_names: Sequence[str], runtime: Runtime) -> list[LabelIssue]:
    """Those of the rows that the model labels otherwise too, the surest first."""
    if not len(rows):
        return []
    texts = [train.texts[row] for row in rows.tolist()]
    return find_mistakes(texts, np.asarray(train.labels)[rows], runtime.predict_prepared(texts), label_names)


def find_mistakes(
    texts: Sequence[str], given: IntArray, probabilities: FloatArray, label_names: Sequence[str]
) -> list[LabelIssue]:
    """The rows that the model labels otherwise than they are, the surest first.

    Args:
        texts: The rows' texts.
        given: Their labels, `(rows,)`.
        probabilities: The model's, `(rows, num_labels)`.
        label_names: In label order.
    """
    places, best = np.arange(len(texts)), probabilities.argmax(axis=1)
    margin = probabilities[places, best] - probabilities[places, given]
    return [
        LabelIssue(
            texts[place][:_SHOWN_CHARACTERS],
            label_names[given[place]],
            label_names[best[place]],
            float(probabilities[place, best[place]]),
            float(probabilities[place, given[place]]),
        )
        for place in np.argsort(-margin, kind="stable").tolist()
        if best[place] != given[place]
    ][:MOST]
