"""What a model has to beat: TF-IDF of words and pairs of words with logistic regression, on the same rows.

It is fitted before the model is trained, in seconds, and scored on the same test rows, so that a user sees what the
encoder adds on this data, and at what speed.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import SGDClassifier

from newsbert.core import cpu
from newsbert.core.types import FloatArray, IntArray
from newsbert.data.dataset import Split
from newsbert.evaluation import metrics
from newsbert.evaluation.metrics import Scores

NAME = "TF-IDF, logistic regression"
MOST_ROWS = 100_000
"""Training rows that it is fitted on: more take longer and make little of a difference."""

# Memory goes with the characters while words and pairs are counted, and with the weights afterwards: both are bounded.
# Hashed features take less, and did worse in a trial: words collide, and all that stands in one text only is kept,
# which is most pairs.
_MOST_CHARACTERS = 30_000_000
_TEXT_CHARACTERS = 2_000  # of a text: about the 512 tokens that BERT can read
_MOST_FEATURES = 300_000
_MOST_WEIGHTS = 20_000_000
_FEW_ROWS = 1_000
_PREDICTED_AT_ONCE = 10_000

# A word, a character of a script that is written without blanks, or a sign: so no text is without any.
_PATTERN = r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+|[^\w\s]"
_INVERSE_REGULARIZATION = 10
_EPOCHS, _LEAST_STEPS = 5, 1_000


@dataclass(frozen=True)
class BaselineReport:
    """How it did.

    Attributes:
        scores: On the test rows.
        rows: Training rows that it was fitted on.
        fit_seconds: Time that took.
        texts_per_second: How fast it answers.
    """

    scores: Scores
    rows: int
    fit_seconds: float
    texts_per_second: float

    @property
    def metrics(self) -> dict[str, float]:
        """Its figures by name."""
        return {
            **self.scores.metrics,
            "rows": self.rows,
            "fit_seconds": self.fit_seconds,
            "texts_per_second": self.texts_per_second,
        }


class BaselineClassifier:
    """The baseline, fitted on rows or a sample of them; the same for the same rows and seed.

    Args:
        train: The rows, of two labels or more.
        seed: Of the sample, and of the order in which rows are seen.
        most_rows: How many to sample at most, those with a label that no other row has included.

    Attributes:
        rows: Indices of the rows it was fitted on, ascending.
        labels: Their label ids.
        features: Their weighted words and pairs, a sparse matrix `(rows, features)`.
        seconds: Time that fitting took.
    """

    def __init__(self, train: Split, seed: int, most_rows: int = MOST_ROWS) -> None:
        started = time.perf_counter()
        self._seed = seed
        self.rows, texts = _sample(train, seed, most_rows)
        self.labels = np.asarray(train.labels)[self.rows]
        classes = len(np.unique(self.labels))
        self._vectorizer, self.features = _features(texts, min(_MOST_FEATURES, _MOST_WEIGHTS // classes))
        self._classifier = self.classifier(len(self.labels)).fit(self.features, self.labels)
        self.seconds = time.perf_counter() - started

    def classifier(self, rows: int) -> SGDClassifier:
        """Logistic regression, one label against the rest, for so many rows: by stochastic gradient descent.

        L-BFGS gave the same accuracy in a trial and took many times as long.
        """
        return SGDClassifier(
            loss="log_loss",
            alpha=1 / (_INVERSE_REGULARIZATION * rows),
            max_iter=max(_EPOCHS, _LEAST_STEPS // rows),
            tol=None,
            random_state=self._seed,
            n_jobs=cpu.cores(),
        )

    def predict(self, texts: Sequence[str], num_labels: int) -> FloatArray:
        """Return the probabilities of prepared texts: `(batch, num_labels)`."""
        found = np.zeros((len(texts), num_labels), dtype=np.float32)
        remaining = iter(texts)
        for start in range(0, len(texts), _PREDICTED_AT_ONCE):
            part = [text[:_TEXT_CHARACTERS] for text in islice(remaining, _PREDICTED_AT_ONCE)]
            probabilities = self._classifier.predict_proba(self._vectorizer.transform(part))
            found[start : start + len(part), self._classifier.classes_] = probabilities
        return found

    def score(self, test: Split, label_names: Sequence[str]) -> BaselineReport:
        """Score it on rows that it has not seen."""
        started = time.perf_counter()
        probabilities = self.predict(test.texts, len(label_names))
        took = time.perf_counter() - started
        scores = metrics.score(probabilities, test.labels, label_names)
        return BaselineReport(scores, len(self.rows), self.seconds, len(test) / took)


def _sample(train: Split, seed: int, most: int) -> tuple[IntArray, list[str]]:
    """Indices of at most so many rows, fewer if their texts are long, and the beginnings of their texts."""
    labels = np.asarray(train.labels)
    rows = _draw(labels, most, seed)
    texts = [train.texts[row][:_TEXT_CHARACTERS] for row in rows.tolist()]
    characters = sum(map(len, texts))
    if characters > _MOST_CHARACTERS:
        kept = _draw(labels[rows], len(rows) * _MOST_CHARACTERS // characters, seed)
        rows, texts = rows[kept], [texts[place] for place in kept.tolist()]
    return rows, texts


def _draw(labels: IntArray, most: int, seed: int) -> IntArray:
    """Indices of at most so many rows, ascending, no label left out."""
    if len(labels) <= most:
        return np.arange(len(labels))
    _, first = np.unique(labels, return_index=True)
    drawn = np.random.default_rng(seed).choice(len(labels), max(0, most - len(first)), replace=False, shuffle=False)
    return np.union1d(first, drawn)


def _features(texts: Sequence[str], most: int) -> tuple[TfidfVectorizer, Any]:
    """Learn the most frequent words and pairs, of many rows those of two or more, and weigh the texts by them."""
    least = 1 if len(texts) <= _FEW_ROWS else 2
    vectorizer = TfidfVectorizer(
        token_pattern=_PATTERN, ngram_range=(1, 2), min_df=least, max_features=most, sublinear_tf=True, dtype=np.float32
    )
    try:
        return vectorizer, vectorizer.fit_transform(texts)
    except ValueError:  # no word stands in two texts
        return vectorizer, vectorizer.set_params(min_df=1).fit_transform(texts)
