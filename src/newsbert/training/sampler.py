"""The order of training rows: batches of about the same length."""

import functools
import math
from collections.abc import Sequence

import numpy as np

from newsbert.core.types import IntArray

MEGABATCH = 50
"""So many batches are drawn at once, and their rows put together by length."""


class LengthGroupedSampler:
    """Say which rows a step reads: every row once an epoch, in an order that seed and epoch decide.

    Rows of about the same length share a batch, so that little is padded.

    Args:
        lengths: The length of every row.
        batch_size: Rows of a step.
        seed: Of the order.
        megabatch: So many batches are drawn at once, and their rows put together by length; 1 for a random order.
    """

    def __init__(self, lengths: IntArray, batch_size: int, seed: int, megabatch: int = MEGABATCH) -> None:
        self._lengths, self._batch_size, self._seed, self._megabatch = lengths, batch_size, seed, megabatch
        self.steps = math.ceil(len(lengths) / batch_size)
        self._epoch = functools.lru_cache(1)(self._draw)

    def rows(self, step: int) -> Sequence[int]:
        """Return the indices of the rows of a step, of which the first is 1."""
        epoch, place = divmod(step - 1, self.steps)
        order, places = self._epoch(epoch)
        start = int(places[place]) * self._batch_size
        rows: list[int] = order[start : start + self._batch_size].tolist()
        return rows

    def _draw(self, epoch: int) -> tuple[IntArray, IntArray]:
        """Return all rows, batch by batch, and in which order the batches are read."""
        generator = np.random.default_rng([self._seed, epoch])
        order = generator.permutation(np.arange(len(self._lengths), dtype=np.int32))
        size = self._megabatch * self._batch_size
        for start in range(0, len(order), size):
            part = order[start : start + size]
            part[:] = part[np.argsort(self._lengths[part], kind="stable")]
        return order, generator.permutation(np.arange(self.steps, dtype=np.int32))
