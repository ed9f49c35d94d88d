"""Sketch of the digests of training texts, to count how many of other texts a model has learned from.

A bottom-k sketch holds the `SIZE` smallest digests. Of up to `SIZE` texts it holds all digests, and the count is exact.
Of more texts the count is an estimate. Digests are as good as random, so texts with small digests are a random sample.

Source: Cohen and Kaplan, "Summarizing data using bottom-k sketches", PODC 2007.
"""

import hashlib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from newsbert.errors import ModelError

SIZE = 16_384
_DIGEST_BYTES = 8
_WINDOW = 100_000

Digests = NDArray[np.uint64]


def write(texts: Iterable[str], file: Path) -> None:
    """Write the sketch of prepared texts."""
    smallest: Digests = np.empty(0, np.uint64)
    texts = iter(texts)
    while window := list(islice(texts, _WINDOW)):
        smallest = np.unique(np.concatenate([smallest, _hash_texts(window)]))[:SIZE]
    file.write_bytes(smallest.astype("<u8").tobytes())


def count_known(texts: Iterable[str], file: Path) -> int:
    """Return the number of prepared texts that are in a sketch, as an exact count or an estimate.

    Raises:
        ModelError: If the file is no sketch.
    """
    with file.open("rb") as stream:
        content = stream.read(SIZE * _DIGEST_BYTES + 1)
    if len(content) % _DIGEST_BYTES or len(content) > SIZE * _DIGEST_BYTES:
        raise ModelError(f"{file.name} is no sketch of texts", "train or fetch the model again")
    smallest = np.frombuffer(content, "<u8")
    digests = _hash_texts(list(texts))
    sampled = digests <= smallest.max() if len(smallest) == SIZE else np.ones(len(digests), bool)
    known = int(np.isin(digests, smallest).sum())
    return round(known * len(digests) / max(1, int(sampled.sum())))


def _hash_texts(texts: list[str]) -> Digests:
    content = b"".join(hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).digest() for text in texts)
    return np.frombuffer(content, "<u8").astype(np.uint64)
