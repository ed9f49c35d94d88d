"""Order of training rows: batches of about the same length."""

import functools
import math
from collections.abc import Sequence

import numpy as np

from newsbert.core.types import IntArray

MEGABATCH = 50
"""Number of batches that are drawn together, so that their rows can be sorted by length."""


class LengthGroupedSampler:
    """Sampler of the rows of a step: every row once per epoch, in an order from seed and epoch.

    A batch has rows of about the same length, to reduce padding.

    Args:
        lengths: Length of every row.
        batch_size: Number of rows of a step.
        seed: Seed of the order.
        megabatch: Number of batches that are drawn together and sorted by length; 1 for a random order.
    """

    def __init__(self, lengths: IntArray, batch_size: int, seed: int, megabatch: int = MEGABATCH) -> None:
        self._lengths, self._batch_size, self._seed, self._megabatch = lengths, batch_size, seed, megabatch
        self.steps = math.ceil(len(lengths) / batch_size)
        self._epoch = functools.lru_cache(1)(self._draw)

    def rows(self, step: int) -> Sequence[int]:
        """Return the indices of the rows of a step, counted from 1."""
        epoch, position = divmod(step - 1, self.steps)
        order, batch_order = self._epoch(epoch)
        start = int(batch_order[position]) * self._batch_size
        rows: list[int] = order[start : start + self._batch_size].tolist()
        return rows

    def _draw(self, epoch: int) -> tuple[IntArray, IntArray]:
        """Return all rows, batch by batch, and the order of the batches."""
        generator = np.random.default_rng([self._seed, epoch])
        order = generator.permutation(np.arange(len(self._lengths), dtype=np.int32))
        size = self._megabatch * self._batch_size
        for start in range(0, len(order), size):
            part = order[start : start + size]
            part[:] = part[np.argsort(self._lengths[part], kind="stable")]
        return order, generator.permutation(np.arange(self.steps, dtype=np.int32))
