"""Baseline of a model: TF-IDF of words and word pairs with logistic regression, on the same rows.

It is fitted in seconds, before the model is trained. It is scored on the same test rows. So a user sees what the
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
MAX_ROWS = 100_000
"""Maximum number of training rows to fit on: more take longer and make little difference."""

# Memory grows with the characters while words and pairs are counted, and with the weights afterwards: both are bounded.
# Hashed features take less memory but did worse in a trial. Words collide, and terms that occur in a single text stay:
# these are most pairs.
MAX_CHARACTERS = 30_000_000
_TEXT_CHARACTERS = 2_000  # per text: about the 512 tokens that BERT can read
_MAX_FEATURES = 300_000
_MAX_WEIGHTS = 20_000_000
_FEW_ROWS = 1_000
_PREDICTION_BATCH = 10_000

# A token is a word, a character of a script without spaces, or a symbol, so that every text has at least one.
_TERM_PATTERN = r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+|[^\w\s]"
_INVERSE_REGULARIZATION = 10
_EPOCHS, _MIN_STEPS = 5, 1_000


@dataclass(frozen=True)
class BaselineReport:
    """Results of the baseline.

    Attributes:
        scores: Scores on the test rows.
        rows: Number of training rows that it was fitted on.
        fit_seconds: Time to fit it.
        texts_per_second: Prediction speed.
    """

    scores: Scores
    rows: int
    fit_seconds: float
    texts_per_second: float

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics by name."""
        return {
            **self.scores.metrics,
            "rows": self.rows,
            "fit_seconds": self.fit_seconds,
            "texts_per_second": self.texts_per_second,
        }


class BaselineClassifier:
    """The baseline, fitted on rows or a sample of them; deterministic for the same rows and seed.

    Args:
        train: Training rows, of two labels or more.
        seed: Seed of the sample, and of the order of rows in the descent.
        max_rows: Maximum number of rows to sample; no label is left out.

    Attributes:
        rows: Indices of the rows it was fitted on, ascending.
        labels: Their label ids.
        features: Their weighted words and pairs, a sparse matrix `(rows, features)`.
        seconds: Time that fitting took.
    """

    def __init__(self, train: Split, seed: int, max_rows: int = MAX_ROWS) -> None:
        started = time.perf_counter()
        self._seed = seed
        self.rows, texts = _sample(train, seed, max_rows)
        self.labels = np.asarray(train.labels)[self.rows]
        classes = len(np.unique(self.labels))
        self._vectorizer, self.features = _fit_vectorizer(texts, min(_MAX_FEATURES, _MAX_WEIGHTS // classes))
        self._classifier = self.classifier(len(self.labels)).fit(self.features, self.labels)
        self.seconds = time.perf_counter() - started

    def classifier(self, rows: int) -> SGDClassifier:
        """Return a one-vs-rest logistic regression for this number of rows, fitted by stochastic gradient descent.

        L-BFGS gave the same accuracy in a trial and took many times as long.
        """
        return SGDClassifier(
            loss="log_loss",
            alpha=1 / (_INVERSE_REGULARIZATION * rows),
            max_iter=max(_EPOCHS, _MIN_STEPS // rows),
            tol=None,
            random_state=self._seed,
            n_jobs=cpu.cores(),
        )

    def predict(self, texts: Sequence[str], num_labels: int) -> FloatArray:
        """Return the probabilities of prepared texts: `(batch, num_labels)`."""
        result = np.zeros((len(texts), num_labels), dtype=np.float32)
        remaining = iter(texts)
        for start in range(0, len(texts), _PREDICTION_BATCH):
            part = [text[:_TEXT_CHARACTERS] for text in islice(remaining, _PREDICTION_BATCH)]
            probabilities = self._classifier.predict_proba(self._vectorizer.transform(part))
            result[start : start + len(part), self._classifier.classes_] = probabilities
        return result

    def score(self, test: Split, label_names: Sequence[str]) -> BaselineReport:
        """Score it on unseen rows."""
        started = time.perf_counter()
        probabilities = self.predict(test.texts, len(label_names))
        seconds = time.perf_counter() - started
        scores = metrics.score(probabilities, test.labels, label_names)
        return BaselineReport(scores, len(self.rows), self.seconds, len(test) / seconds)


def _sample(train: Split, seed: int, most: int) -> tuple[IntArray, list[str]]:
    """Return the indices of a sample of rows, fewer if their texts are long, and the beginnings of their texts."""
    labels = np.asarray(train.labels)
    rows = _draw(labels, most, seed)
    texts = [train.texts[row][:_TEXT_CHARACTERS] for row in rows.tolist()]
    characters = sum(map(len, texts))
    if characters > MAX_CHARACTERS:
        subset = _draw(labels[rows], len(rows) * MAX_CHARACTERS // characters, seed)
        rows, texts = rows[subset], [texts[place] for place in subset.tolist()]
    return rows, texts


def _draw(labels: IntArray, most: int, seed: int) -> IntArray:
    """Return the indices of at most `most` rows, ascending; no label is left out."""
    if len(labels) <= most:
        return np.arange(len(labels))
    _, first = np.unique(labels, return_index=True)
    drawn = np.random.default_rng(seed).choice(len(labels), max(0, most - len(first)), replace=False, shuffle=False)
    return np.union1d(first, drawn)


def _fit_vectorizer(texts: Sequence[str], most: int) -> tuple[TfidfVectorizer, Any]:
    """Fit a TF-IDF vectorizer and transform the texts; if they are many, a term must occur in two of them."""
    min_count = 1 if len(texts) <= _FEW_ROWS else 2
    vectorizer = TfidfVectorizer(
        token_pattern=_TERM_PATTERN,
        ngram_range=(1, 2),
        min_df=min_count,
        max_features=most,
        sublinear_tf=True,
        dtype=np.float32,
    )
    try:
        return vectorizer, vectorizer.fit_transform(texts)
    except ValueError:  # no term occurs in two texts
        return vectorizer, vectorizer.set_params(min_df=1).fit_transform(texts)
