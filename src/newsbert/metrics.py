"""What the workers of a server count for Prometheus: files of numbers in a directory that they share with it.

A worker adds to numbers in a file of its own that is mapped into memory: once a batch, without a system call. The
supervisor reads the files whenever it is asked. What a worker has counted stays when the worker dies, so that no
counter ever goes back.
"""

import bisect
import json
import mmap
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from newsbert.evaluation import FloatArray
from newsbert.runtimes import Measured

STATUSES = (200, 400, 413, 415, 500, 503)
"""All statuses that the handler answers with."""

_SUFFIX = ".counts"
_ITEM_BYTES = 8
Counts = NDArray[np.float64]
_Add = Callable[[Sequence[float]], None]


@dataclass(frozen=True)
class Family:
    """A metric: a counter, or with bounds a histogram.

    Attributes:
        name: What it is called.
        help: What it counts.
        label: The label that tells a counter's series from one another.
        bounds: Upper bounds of a histogram's buckets, without the infinite one.
    """

    name: str
    help: str
    label: str = ""
    bounds: tuple[float, ...] = ()


_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

REQUESTS = Family("newsbert_requests_total", "Requests that reached a worker, by status.", "status")
PREDICTIONS = Family("newsbert_predictions_total", "Documents classified, by predicted label.", "label")
CONFIDENCE = Family(
    "newsbert_confidence_ratio",
    "Probability of the predicted label, one for each document.",
    bounds=(0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0),
)
TOKENS = Family(
    "newsbert_document_tokens",
    "Tokens read of a document, special ones included, after cutting to the model's length.",
    bounds=(8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512),
)
BATCH = Family("newsbert_batch_requests", "Requests answered together.", bounds=(1, 2, 4, 8, 16, 32, 64, 128, 256))
TOKENIZER = Family("newsbert_tokenizer_seconds", "Time in the tokenizer, one for each batch.", bounds=_SECONDS)
MODEL = Family("newsbert_model_seconds", "Time in the model, one for each batch.", bounds=_SECONDS)

FAMILIES = (REQUESTS, PREDICTIONS, CONFIDENCE, TOKENS, BATCH, TOKENIZER, MODEL)


@dataclass(frozen=True)
class Layout:
    """Which number of a file means what: a counter has one for each value of its label, a histogram one for each
    bucket, the infinite one included, and the sum behind them.
    """

    model: str
    labels: tuple[str, ...]

    def values(self, family: Family) -> tuple[str, ...]:
        """The values that a counter's label may have."""
        return tuple(map(str, STATUSES)) if family is REQUESTS else self.labels

    def places(self) -> dict[Family, slice]:
        """Where each metric's numbers are."""
        found, start = {}, 0
        for family in FAMILIES:
            size = len(family.bounds) + 2 if family.bounds else len(self.values(family))
            found[family] = slice(start, start + size)
            start += size
        return found

    def size(self) -> int:
        """How many numbers there are."""
        return sum(place.stop - place.start for place in self.places().values())


class Metrics:
    """A worker's counts. They are added to by one thread at a time.

    Args:
        directory: Where the server looks for them; without one nothing is counted, as under somebody else's TorchServe.
        model: What the answers say of the model, such as `BertModel/7`.
        labels: The model's labels, in the order of its probabilities.

    Raises:
        OSError: If its file cannot be written.
    """

    def __init__(self, directory: Path | None, model: str, labels: Sequence[str]) -> None:
        self._add: dict[Family, _Add] = {}
        self._statuses = {status: index for index, status in enumerate(STATUSES)}
        if directory is None:
            return
        layout = Layout(model, tuple(labels))
        counts = _create(directory, layout)
        for family, place in layout.places().items():
            self._add[family] = _adder(family, counts[place])

    def batch(self, statuses: Sequence[int], probabilities: FloatArray, measured: Measured) -> None:
        """Count a batch that was answered.

        Args:
            statuses: What each request got.
            probabilities: Of all documents in it: `(documents, num_labels)`.
            measured: What the runtime said of them.
        """
        if not self._add:
            return
        self._add[REQUESTS]([self._statuses[status] for status in statuses])
        self._add[BATCH]([len(statuses)])
        if len(probabilities):
            self._add[PREDICTIONS](probabilities.argmax(axis=1).tolist())
            self._add[CONFIDENCE](probabilities.max(axis=1).tolist())
            self._add[TOKENS](measured.tokens)
            self._add[TOKENIZER]([measured.tokenizer_s])
            self._add[MODEL]([measured.model_s])


def _adder(family: Family, counts: "memoryview[float]") -> _Add:
    """What adds to a metric: a counter is given the indices of its label's values, a histogram what was observed.

    In plain Python, which at the size of a batch takes a fraction of what NumPy's calls do.
    """
    bounds = family.bounds

    def count(indices: Sequence[float]) -> None:
        for index in indices:
            counts[int(index)] += 1

    def observe(observed: Sequence[float]) -> None:
        for value in observed:
            # The first bound that is not below: a bucket holds what is equal to its bound.
            counts[bisect.bisect_left(bounds, value)] += 1
        counts[-1] += sum(observed)

    return observe if bounds else count


def _create(directory: Path, layout: Layout) -> "memoryview[float]":
    """Make a worker's file: a line that says what it holds, and the numbers, all of them zero."""
    head = json.dumps({"pid": os.getpid(), "model": layout.model, "labels": layout.labels}).encode()
    head = head.ljust(-(-(len(head) + 1) // _ITEM_BYTES) * _ITEM_BYTES - 1) + b"\n"
    file = directory / f"{os.getpid()}-{time.time_ns()}{_SUFFIX}"
    partial = file.with_suffix(".partial")
    # Written, not left as a hole: memory that a full disk cannot give would end the process when it is first touched.
    partial.write_bytes(head + bytes(layout.size() * _ITEM_BYTES))
    with partial.open("r+b") as opened:
        numbers = memoryview(mmap.mmap(opened.fileno(), 0))[len(head) :].cast("d")
    partial.rename(file)
    return numbers


@dataclass(frozen=True)
class Worker:
    """What a worker has counted, dead or alive."""

    alive: bool
    layout: Layout
    counts: Counts


def workers(directory: Path) -> Iterator[Worker]:
    """All workers that a server has had."""
    for file in sorted(directory.glob(f"*{_SUFFIX}")):
        head, _, numbers = file.read_bytes().partition(b"\n")
        told = json.loads(head)
        layout = Layout(told["model"], tuple(told["labels"]))
        yield Worker(Path(f"/proc/{told['pid']}").exists(), layout, np.frombuffer(numbers, np.float64))
