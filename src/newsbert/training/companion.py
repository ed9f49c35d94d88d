"""Fitting of a model's companion, in one pass over the rows to hash terms and some passes to learn their weights.

It is a multinomial logistic regression of hashed words and pairs, each weighted by its inverse document frequency, and
fitted by stochastic gradient descent with AdaGrad (Duchi and others, 2011,
https://jmlr.org/papers/v12/duchi11a.html). The hashes are in a file, so memory does not grow with the number of rows.
The same rows and seed give the same bytes.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from newsbert.bundle.contract import CompanionInfo
from newsbert.core import cache
from newsbert.core.types import FloatArray, IntArray
from newsbert.data.ragged_array import RaggedArray, RaggedWriter
from newsbert.evaluation.calibration import softmax
from newsbert.inference.companion import Companion, hash_terms

_MAX_BYTES, _MIN_ROWS, _MAX_ROWS = 16 * 2**20, 2**12, 2**20
_ROWS_PER_TERM = 4
"""Rows of the table per term that occurs, so that few terms have one in common."""

_BATCH_ROWS, _BLOCK_ROWS = 64, 8192
_MIN_EPOCHS, _MAX_EPOCHS, _EPOCH_ROWS, _MIN_STEPS = 3, 10, 150_000, 300
_LEARNING_RATE, _BIAS_LEARNING_RATE, _INITIAL_SQUARE = 0.2, 0.02, 1e-3
_LARGEST_WEIGHT = 127


OnRows = Callable[[int, int], None]


class Examples:
    """Texts with their labels, and texts without labels with a model's probabilities instead.

    Args:
        texts: Prepared texts.
        labels: Their label ids, `(rows,)`.
        num_labels: Number of labels.
        unlabelled: More prepared texts.
        probabilities: A model's probabilities of these, `(unlabelled rows, num_labels)`.
    """

    def __init__(
        self,
        texts: Sequence[str],
        labels: IntArray,
        num_labels: int,
        unlabelled: Sequence[str] = (),
        probabilities: FloatArray | None = None,
    ) -> None:
        self._texts, self._unlabelled, self.num_labels = texts, unlabelled, num_labels
        self._labels = np.asarray(labels)
        self._probabilities = np.empty((0, num_labels), np.float32) if probabilities is None else probabilities

    def __len__(self) -> int:
        return len(self._texts) + len(self._unlabelled)

    def read(self, rows: Sequence[int]) -> list[str]:
        """Return the texts of these rows."""
        count = len(self._texts)
        return [self._texts[row] if row < count else self._unlabelled[row - count] for row in rows]

    def targets(self, rows: IntArray) -> FloatArray:
        """Return the probabilities of these rows that are to be learned: `(rows, num_labels)`."""
        result = np.zeros((len(rows), self.num_labels), np.float32)
        is_labelled = rows < len(self._texts)
        result[np.flatnonzero(is_labelled), self._labels[rows[is_labelled]]] = 1
        result[~is_labelled] = self._probabilities[rows[~is_labelled] - len(self._texts)]
        return result


def fit(examples: Examples, seed: int, on_rows: OnRows = lambda done, total: None) -> Companion:
    """Fit a companion, whose use is yet to be decided: its mix has the model's weight alone.

    Args:
        examples: What to learn.
        seed: Seed of the order.
        on_rows: Called from time to time with the number of rows learned from, and of all rows of all epochs.

    Raises:
        NewsbertError: If the cache directory cannot be written to.
    """
    with cache.make_temporary_dir("terms") as directory:
        with cache.report_errors(directory):  # and not those of `on_rows`
            frequencies = _hash_examples(examples, directory / "terms")
        return _fit(examples, RaggedArray(directory / "terms", np.uint32), frequencies, seed, on_rows)


def _fit(
    examples: Examples, terms: RaggedArray[np.uint32], frequencies: IntArray, seed: int, on_rows: OnRows
) -> Companion:
    """Fit a companion to examples with these terms, of which every row of its table has this many."""
    num_rows = len(frequencies)
    shift = (_MAX_ROWS // num_rows).bit_length() - 1
    rarity = (np.log((1 + len(examples)) / (1 + frequencies)) + 1).astype(np.float32)
    weights = np.zeros((num_rows, examples.num_labels), np.float32)
    squares = np.full_like(weights, _INITIAL_SQUARE)
    bias = np.zeros(examples.num_labels, np.float32)
    num_epochs = max(_MIN_EPOCHS, min(_MAX_EPOCHS, _EPOCH_ROWS // len(examples)))
    num_epochs = max(num_epochs, -(-_MIN_STEPS * _BATCH_ROWS // len(examples)))
    num_steps, step = num_epochs * -(-len(examples) // _BATCH_ROWS), 0
    rng = np.random.default_rng(seed)
    done, reported, total = 0, 0, num_epochs * len(examples)
    for _ in range(num_epochs):
        for rows, parts in _iterate_shuffled(terms, rng):
            counts = np.array([len(part) for part in parts])
            table_rows, places = np.unique(np.concatenate(parts) >> shift, return_inverse=True)
            values = rarity[table_rows][places] / np.sqrt(np.repeat(counts, counts)).astype(np.float32)
            features = sparse.csr_matrix(
                (values, places, np.concatenate([[0], np.cumsum(counts)])), shape=(len(rows), len(table_rows))
            )
            # The tables are larger than the processor's cache: their rows are read once and written once.
            row_weights, row_squares = weights.take(table_rows, axis=0), squares.take(table_rows, axis=0)
            errors = softmax(features @ row_weights + bias) - examples.targets(rows)
            gradient = features.T @ errors / len(rows)
            row_squares += gradient * gradient
            rate = 1 - step / num_steps
            row_weights -= _LEARNING_RATE * rate * gradient / np.sqrt(row_squares)
            weights[table_rows], squares[table_rows] = row_weights, row_squares
            bias -= _BIAS_LEARNING_RATE * rate * errors.mean(axis=0)
            step += 1
            done += len(rows)
            if done - reported >= _BLOCK_ROWS:
                on_rows(reported := done, total)
    return _quantize(weights * rarity[:, None], bias)


def _quantize(weights: FloatArray, bias: FloatArray) -> Companion:
    """Return a companion with 8-bit weights."""
    scale = float(np.abs(weights).max()) / _LARGEST_WEIGHT or 1.0
    table: NDArray[np.int8] = np.rint(weights / scale).astype(np.int8)
    return Companion(table, CompanionInfo(scale, bias.astype(np.float64).tolist(), 1.0, 0.0))


def _hash_examples(examples: Examples, directory: Path) -> IntArray:
    """Write the terms of all examples, as rows of the largest table; return how often every row of the table occurs.

    The size of the table depends on the number of terms.
    """
    occurrences = np.zeros(_MAX_ROWS, np.int64)
    with RaggedWriter(directory, np.uint32) as writer:
        for start in range(0, len(examples), _BLOCK_ROWS):
            texts = examples.read(range(start, min(start + _BLOCK_ROWS, len(examples))))
            terms, counts = hash_terms(texts, _MAX_ROWS)
            occurrences += np.bincount(terms, minlength=_MAX_ROWS)
            writer.extend(np.split(terms, np.cumsum(counts)[:-1]))
    num_rows = 1 << (_ROWS_PER_TERM * int(np.count_nonzero(occurrences)) - 1).bit_length()
    largest = 1 << (_MAX_BYTES // examples.num_labels).bit_length() - 1
    num_rows = max(_MIN_ROWS, min(num_rows, largest, _MAX_ROWS))
    # A table of half the size has the rows of two neighbours: the row is the first bits of a hash.
    return np.asarray(occurrences.reshape(num_rows, -1).sum(axis=1))


def _iterate_shuffled(
    terms: RaggedArray[np.uint32], rng: np.random.Generator
) -> Iterator[tuple[IntArray, list[NDArray[np.uint32]]]]:
    """Yield batches of all rows in random order, with their terms, block by block: a block is read at once."""
    for start in rng.permutation(np.arange(0, len(terms), _BLOCK_ROWS)).tolist():
        block = terms.read(start, min(start + _BLOCK_ROWS, len(terms)))
        order = rng.permutation(len(block))
        for first in range(0, len(order), _BATCH_ROWS):
            places = order[first : first + _BATCH_ROWS]
            yield start + places, [block[place] for place in places.tolist()]
