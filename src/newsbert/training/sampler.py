"""The order of training rows: batches of about the same length."""

import functools
import math
from collections.abc import Sequence

import numpy as np

from newsbert.core.types import IntArray

_MEGABATCH = 50
"""So many batches are drawn at once, and their rows put together by length."""


class LengthGroupedSampler:
    """Which rows a step reads: every row once an epoch, in an order that seed and epoch say.

    Rows of about the same length share a batch, so that little is padded.
    """

    def __init__(self, lengths: IntArray, batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed = lengths, batch_size, seed
        self.steps = math.ceil(len(lengths) / batch_size)
        self._epoch = functools.lru_cache(1)(self._draw)

    def rows(self, step: int) -> Sequence[int]:
        """Indices of the rows of a step, of which the first is 1."""
        epoch, place = divmod(step - 1, self.steps)
        order, places = self._epoch(epoch)
        start = int(places[place]) * self._batch_size
        rows: list[int] = order[start : start + self._batch_size].tolist()
        return rows

    def _draw(self, epoch: int) -> tuple[IntArray, IntArray]:
        """All rows, batch by batch, and in which order the batches are read."""
        generator = np.random.default_rng([self._seed, epoch])
        order = generator.permutation(np.arange(len(self._lengths), dtype=np.int32))
        for start in range(0, len(order), _MEGABATCH * self._batch_size):
            part = order[start : start + _MEGABATCH * self._batch_size]
            part[:] = part[np.argsort(self._lengths[part], kind="stable")]
        return order, generator.permutation(np.arange(self.steps, dtype=np.int32))
