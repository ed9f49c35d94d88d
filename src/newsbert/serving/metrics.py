"""What the workers of a server count for Prometheus, with Prometheus's own library in its multiprocess mode.

A worker counts in files of its own that are mapped into memory, in a directory that it shares with the supervisor,
which reads them whenever it is asked. What a worker has counted stays when the worker dies, so that no counter ever
goes back. See https://prometheus.github.io/client_python/multiprocess/
"""

import collections
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from newsbert.core import environment
from newsbert.core.types import FloatArray
from newsbert.inference.runtime import InferenceTimings

if TYPE_CHECKING:
    from prometheus_client import Counter, Histogram, Metric

STATUSES = (200, 400, 413, 415, 500, 503)
"""All statuses that the handler answers with."""

_KINDS = ("counter", "histogram")
_FILE_BYTES = 1 << 16
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """A worker's counts.

    Args:
        directory: Where the server looks for them; without one nothing is counted, as under somebody else's TorchServe.
        model: What the answers say of the model, such as `BertModel/7`.
        labels: The model's labels, in the order of its probabilities.

    Raises:
        OSError: If its files cannot be written.
    """

    def __init__(self, directory: Path | None, model: str, labels: Sequence[str]) -> None:
        self._counting = directory is not None
        if directory is None:
            return
        _count_in(directory)
        # Here, since somebody else's TorchServe may not have it.
        from prometheus_client import Counter, Histogram

        def counters(name: str, meaning: str, label: str, values: Iterable[object]) -> "list[Counter]":
            counter = Counter(name, meaning, ["model", label], registry=None)
            return [counter.labels(model, value) for value in values]

        def histogram(name: str, meaning: str, bounds: Sequence[float] = _SECONDS) -> "Histogram":
            return Histogram(name, meaning, ["model"], buckets=bounds, registry=None).labels(model)

        requests = counters("newsbert_requests_total", "Requests that reached a worker, by status.", "status", STATUSES)
        self._requests = dict(zip(STATUSES, requests, strict=True))
        self._predictions = counters(
            "newsbert_predictions_total", "Documents classified, by predicted label.", "label", labels
        )
        self._reviews = Counter(
            "newsbert_reviews_total",
            "Documents classified that a person should see: their score is below the threshold.",
            ["model"],
            registry=None,
        ).labels(model)
        self._confidence = histogram(
            "newsbert_confidence_ratio",
            "Probability of the predicted label, one for each document.",
            (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0),
        )
        self._tokens = histogram(
            "newsbert_document_tokens",
            "Tokens read of a document, special ones included, after cutting to the model's length.",
            (8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512),
        )
        self._batch = histogram(
            "newsbert_batch_requests", "Requests answered together.", (1, 2, 4, 8, 16, 32, 64, 128, 256)
        )
        self._tokenizer = histogram("newsbert_tokenizer_seconds", "Time in the tokenizer, one for each batch.")
        self._model = histogram("newsbert_model_seconds", "Time in the model, one for each batch.")

    def batch(
        self, statuses: Sequence[int], probabilities: FloatArray, measured: InferenceTimings, reviews: int = 0
    ) -> None:
        """Count a batch that was answered.

        Args:
            statuses: What each request got.
            probabilities: Of all documents in it: `(documents, num_labels)`.
            measured: What the runtime said of them.
            reviews: How many of them a person should see.
        """
        if not self._counting:
            return
        for status, count in collections.Counter(statuses).items():
            self._requests[status].inc(count)
        self._batch.observe(len(statuses))
        self._reviews.inc(reviews)
        if len(probabilities):
            for label, count in collections.Counter(probabilities.argmax(axis=1).tolist()).items():
                self._predictions[label].inc(count)
            for probability in probabilities.max(axis=1).tolist():
                self._confidence.observe(probability)
            for tokens in measured.tokens:
                self._tokens.observe(tokens)
            self._tokenizer.observe(measured.tokenizer_s)
            self._model.observe(measured.model_s)


def _count_in(directory: Path) -> None:
    """Have the library count in files of this worker, whichever process had its number before."""
    from prometheus_client import values

    worker = f"{os.getpid()}-{time.time_ns()}"
    for kind in _KINDS:
        file = directory / f"{kind}_{worker}.db"
        partial = file.with_suffix(".partial")
        # Written, where the library would leave a hole: memory that a full disk cannot give would end the process when
        # it is first touched. And there at once: a file that is empty still cannot be read.
        partial.write_bytes(bytes(_FILE_BYTES))
        partial.rename(file)
    environment.set_prometheus_dir(directory)
    values.ValueClass = values.MultiProcessValue(lambda: worker)  # type: ignore[no-untyped-call]


class _Workers:
    """What all workers of a server have counted together, dead ones included, and how many there are."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> "Iterator[Metric]":
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
        from prometheus_client.multiprocess import MultiProcessCollector

        # Not by its own search for files, which would take a `[` in the path for a pattern.
        files = [str(file) for file in self._directory.glob("*.db")]
        yield from MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        last = f"{_KINDS[-1]}_"
        pids = [file.name.removeprefix(last).partition("-")[0] for file in self._directory.glob(f"{last}*.db")]
        alive = sum(Path("/proc", pid).exists() for pid in pids)
        yield GaugeMetricFamily("newsbert_workers", "Workers that live.", alive)
        yield CounterMetricFamily("newsbert_worker_starts", "Workers that were started.", len(pids))


def page(directory: Path) -> str:
    """Write what all workers have counted together, dead ones included, as Prometheus reads it.

    Args:
        directory: Where they count.
    """
    from prometheus_client import generate_latest

    return generate_latest(_Workers(directory)).decode()
