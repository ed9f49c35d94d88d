"""The companion of a model: a linear classifier of the words of a text and of the pairs of adjacent words.

It takes microseconds, needs numpy alone, and is fitted on the same rows as the model. Its answers are mixed with those
of the model. If the contract has a threshold for a cascade, a text of which the companion is sure needs no model.

Words and pairs are hashed to the rows of a table of 8-bit weights (Weinberger and others, 2009,
https://arxiv.org/abs/0902.2206). A logit is the sum of the rows' integers, times a scale, divided by the square root of
the number of rows. Sums of integers do not depend on their order. So the same text gets the same answer in every batch,
on every processor and in every process.
"""

import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from newsbert.bundle.contract import CompanionInfo
from newsbert.core.types import FloatArray, IntArray
from newsbert.errors import ModelError

MAX_CHARACTERS = 2_000
"""Number of characters that it reads of a text, at the beginning."""

_HASH_TEXTS = 256
"""Texts that are hashed together: enough to spread numpy's overhead, few enough for the processor's cache."""

# The classes are written out, because those of `\w` change with Python's version of Unicode. Characters of scripts
# without spaces between words, and all other symbols, are words of their own.
_WORD_CHARACTERS = (
    "0-9a-z_\u00aa\u00b5\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u0dff\u0f00-\u0fff\u10a0-\u177f\u1800-\u1fff"
    "\u2c00-\u2dff\ua4d0-\ud7ff\ufb00-\ufdff\ufe70-\ufefc"
)
_INVISIBLE = "\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff"
_WORD = re.compile(rf"[{_WORD_CHARACTERS}]+|[^{_WORD_CHARACTERS}{_INVISIBLE}\s]")

# Odd numbers with well-mixed bits: multiplied by them, the high bits depend on all others.
_WORD_FACTOR, _FIRST_FACTOR, _SECOND_FACTOR, _MIXING_FACTOR = (
    np.uint64(factor) for factor in (0x9E3779B97F4A7C15, 0xA24BAED4963EE407, 0x9FB21C651E98DF25, 0xD6E8FEB86659FD93)
)
_END = 1 << 36
"""Second of the pair that begins with the last word; no hash of a word."""


def hash_terms(sequences: Sequence[str], num_rows: int) -> tuple[IntArray, IntArray]:
    """Return the rows of a table for the words and pairs of texts.

    Args:
        sequences: Prepared texts.
        num_rows: Number of rows of the table, a power of 2.

    Returns:
        The rows `(terms,)` of one text after another, and the number of terms of every text `(texts,)`, at least 2. A
        word is followed by the pair that begins with it; the last word is paired with the end of the text.
    """
    words = [_WORD.findall(sequence[:MAX_CHARACTERS].lower()) or [""] for sequence in sequences]
    counts = np.fromiter(map(len, words), np.int64, len(words))
    encoded = [
        word for text_words in words for word in " ".join(text_words).encode("utf-8", "surrogatepass").split(b" ")
    ]
    hashes = np.fromiter(map(zlib.crc32, encoded), np.uint64, len(encoded))
    following = np.empty_like(hashes)
    following[:-1] = hashes[1:]
    following[np.cumsum(counts) - 1] = _END
    terms = np.empty(2 * len(hashes), np.uint64)
    terms[0::2] = hashes * _WORD_FACTOR
    terms[1::2] = (hashes * _FIRST_FACTOR + following * _SECOND_FACTOR) * _WORD_FACTOR
    terms ^= terms >> np.uint64(32)
    terms *= _MIXING_FACTOR
    terms >>= np.uint64(65 - num_rows.bit_length())
    return terms.astype(np.int64), 2 * counts


class Companion:
    """A companion of a model.

    Args:
        weights: 8-bit weights `(rows, num_labels)`; the number of rows is a power of 2.
        info: What the contract says of it.

    Raises:
        ValueError: If weights and contract do not fit.
    """

    def __init__(self, weights: NDArray[np.int8], info: CompanionInfo) -> None:
        if weights.dtype != np.int8 or weights.ndim != 2 or weights.shape[1] != len(info.bias):
            raise ValueError(f"its weights are {weights.dtype} {weights.shape} for {len(info.bias)} labels")
        if len(weights).bit_count() != 1:
            raise ValueError(f"its weights have {len(weights)} rows, which is no power of 2")
        self.info = info
        self._weights = weights
        self._scale, self._bias = np.array(info.scale), np.array(info.bias)

    @classmethod
    def load(cls, file: Path, info: CompanionInfo) -> "Companion":
        """Load the weights of a bundle.

        Raises:
            ModelError: If the file has no such weights.
        """
        try:
            return cls(np.load(file, allow_pickle=False), info)
        except (OSError, ValueError, EOFError) as error:
            raise ModelError(f"{file} cannot be loaded: {error}", "train or fetch the model again") from error

    @property
    def size_bytes(self) -> int:
        """Size of the weights."""
        return self._weights.nbytes

    def save(self, file: Path) -> None:
        """Write the weights."""
        np.save(file, self._weights, allow_pickle=False)

    def predict(self, sequences: Sequence[str]) -> FloatArray:
        """Return the logarithms of the probabilities of prepared texts: `(texts, num_labels)`."""
        logits = np.empty((len(sequences), len(self._bias)))
        for start in range(0, len(sequences), _HASH_TEXTS):
            rows, counts = hash_terms(sequences[start : start + _HASH_TEXTS], len(self._weights))
            sums = np.add.reduceat(self._weights[rows], np.cumsum(counts) - counts, axis=0, dtype=np.int64)
            logits[start : start + _HASH_TEXTS] = sums * self._scale / np.sqrt(counts)[:, None] + self._bias
        logits -= logits.max(axis=1, keepdims=True)
        return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), np.float32)
