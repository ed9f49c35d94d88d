"""Uncertainty of scores: bootstrap intervals, and McNemar's test of two models on the same rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from newsbert.core.installation import MissingExtraError
from newsbert.core.types import IntArray

LEVEL = 0.95
RESAMPLES = 2_000
_CHUNK_CELLS = 1 << 22  # counts in memory at a time: 32 MB

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """The range of a score with a confidence of `LEVEL`."""

    low: float
    high: float


@dataclass(frozen=True)
class BootstrapScores:
    """A model's scores on resampled rows, as arrays of shape `(resamples,)`."""

    accuracy: Values
    f1_macro: Values


@dataclass(frozen=True)
class McNemar:
    """Result of McNemar's exact test: whether two models are right equally often.

    Attributes:
        only_first: Rows on which only the first is right.
        only_second: Rows on which only the second is right.
        p_value: Probability of such a difference, or a larger one, between models that are right equally often.
    """

    only_first: int
    only_second: int
    p_value: float


def resample(
    true: IntArray, predictions: Sequence[IntArray], num_labels: int, resamples: int = RESAMPLES, seed: int = 0
) -> list[BootstrapScores]:
    """Score models on rows drawn with replacement; all models are scored on the same rows of a resample.

    Rows with the same true label and the same predictions are drawn together, as one count of a multinomial
    distribution. So many rows take about as long as few.

    Args:
        true: True ids, `(rows,)`, of one row or more.
        predictions: Predicted ids of every model, of shape `(rows,)`.
        num_labels: Number of labels.
        resamples: Number of resamples.
        seed: Seed of the draws.

    Returns:
        The scores of every model; as in `evaluation.score`, macro F1 is over the classes that the drawn rows have.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13.
    """
    shape = (num_labels,) * (1 + len(predictions))
    codes, counts = np.unique(np.ravel_multi_index((true, *predictions), shape), return_counts=True)
    true_of, *predicted_of = np.unravel_index(codes, shape)
    rng = np.random.default_rng(seed)
    scores = np.empty((len(predictions), 2, resamples))
    step = max(1, _CHUNK_CELLS // len(codes))
    for start in range(0, resamples, step):
        chunk = slice(start, min(start + step, resamples))
        drawn = rng.multinomial(len(true), counts / len(true), chunk.stop - start)
        rows = _sum_by_class(drawn, true_of, num_labels)
        for model, predicted in enumerate(predicted_of):
            right = predicted == true_of
            hits = _sum_by_class(drawn[:, right], true_of[right], num_labels)
            f1 = 2 * hits / np.maximum(rows + _sum_by_class(drawn, predicted, num_labels), 1)
            scores[model, 0, chunk] = hits.sum(axis=1) / len(true)
            scores[model, 1, chunk] = f1.sum(axis=1) / (rows > 0).sum(axis=1)
    return [BootstrapScores(accuracy, f1_macro) for accuracy, f1_macro in scores]


def _sum_by_class(drawn: IntArray, classes: IntArray, num_labels: int) -> IntArray:
    """Sum counts `(resamples, cells)` by the cells' classes: `(resamples, num_labels)`."""
    order = np.argsort(classes, kind="stable")
    present, starts = np.unique(classes[order], return_index=True)
    sums = np.zeros((len(drawn), num_labels), dtype=np.int64)
    if len(present):
        sums[:, present] = np.add.reduceat(drawn[:, order], starts, axis=1)
    return sums


def interval(values: Values) -> Interval:
    """Return the percentile interval of a score, or of the difference of two, over all resamples."""
    low, high = np.percentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Interval(float(low), float(high))


def intervals(confusion: IntArray) -> tuple[Interval, Interval]:
    """Return the intervals of accuracy and macro F1 for a model's confusion matrix.

    If all rows are right, resampling gives no information. Then the exact bound is used, for F1 that of the class with
    the fewest rows.

    Args:
        confusion: Rows by true and predicted label, `(num_labels, num_labels)`.
    """
    num_labels = len(confusion)
    true, predicted = (np.repeat(ids, confusion.ravel()) for ids in np.indices(confusion.shape).reshape(2, -1))
    (drawn,) = resample(true, [predicted], num_labels)
    accuracy, f1_macro = interval(drawn.accuracy), interval(drawn.f1_macro)
    if (true == predicted).all():
        min_support = int(confusion.sum(axis=1)[confusion.sum(axis=1) > 0].min())
        return Interval(accuracy_lower_bound(len(true)), 1.0), Interval(accuracy_lower_bound(min_support), 1.0)
    return accuracy, f1_macro


def accuracy_lower_bound(rows: int) -> float:
    """Return the lower end of the accuracy's exact interval if all of `rows` rows are right.

    Resampling such rows gives no information: they are all right in every resample.

    Source: Clopper and Pearson, https://doi.org/10.1093/biomet/26.4.404.
    """
    return float(((1 - LEVEL) / 2) ** (1 / rows))


def mcnemar(true: IntArray, first: IntArray, second: IntArray) -> McNemar:
    """Test whether two models are right equally often, from the rows that only one of them has right.

    Args:
        true: True ids, `(rows,)`.
        first: The first model's predicted ids, `(rows,)`.
        second: The second model's predicted ids, `(rows,)`.

    Raises:
        MissingExtraError: If SciPy is not installed.

    Source: McNemar, https://doi.org/10.1007/BF02295996; exact, by the binomial distribution.
    """
    try:
        from scipy.stats import binomtest
    except ImportError as error:
        raise MissingExtraError("scipy", "train") from error
    only_first = int(((first == true) & (second != true)).sum())
    only_second = int(((first != true) & (second == true)).sum())
    discordant = only_first + only_second
    p_value = float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
    return McNemar(only_first, only_second, p_value)
