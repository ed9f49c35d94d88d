"""Prometheus metrics of a server's workers, with `prometheus_client` in its multiprocess mode.

A worker counts in its own memory-mapped files, in a common directory. The supervisor reads the files on every scrape.
The counts of a worker remain when the worker dies, so counters never decrease. See
https://prometheus.github.io/client_python/multiprocess/
"""

import collections
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from newsbert.core import environment, files
from newsbert.core.types import FloatArray
from newsbert.inference.prediction import COMPANION, MODEL
from newsbert.inference.runtime import InferenceTimings

if TYPE_CHECKING:
    from prometheus_client import Counter, Histogram, Metric

TIERS = (COMPANION, MODEL)

STATUSES = (200, 400, 413, 415, 500, 503)
"""All statuses that the handler answers with."""

_KINDS = ("counter", "histogram")
_FILE_BYTES = 1 << 16
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The metrics of a worker.

    Args:
        directory: The server's directory of metrics. If `None`, as under a TorchServe that newsbert did not start,
            nothing is counted.
        model: The model's name in answers, such as `BertModel/7`.
        labels: The model's labels, in the order of its probabilities.
        has_queue: Whether requests wait in this worker, as in the native server.

    Raises:
        OSError: If its files cannot be written.
    """

    def __init__(self, directory: Path | None, model: str, labels: Sequence[str], *, has_queue: bool = False) -> None:
        self._counting = directory is not None
        if directory is None:
            return
        _create_files(directory)
        # Imported here, since a TorchServe that newsbert did not start may lack it.
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
            "Documents that are flagged for review: their score is below the threshold.",
            ["model"],
            registry=None,
        ).labels(model)
        self._tiers = dict(
            zip(
                TIERS,
                counters(
                    "newsbert_tiers_total", "Documents classified, by what answered: companion or model.", "tier", TIERS
                ),
                strict=True,
            )
        )
        self._confidence = histogram(
            "newsbert_confidence_ratio",
            "Probability of the predicted label, one per document.",
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
        self._tokenizer = histogram("newsbert_tokenizer_seconds", "Time in the tokenizer, one per batch.")
        self._model = histogram("newsbert_model_seconds", "Time in the model, one per batch.")
        if has_queue:
            self._queue = histogram("newsbert_queue_seconds", "Time of a request in the queue of the native server.")

    def batch(
        self, statuses: Sequence[int], probabilities: FloatArray, measured: InferenceTimings, reviews: int = 0
    ) -> None:
        """Count an answered batch.

        Args:
            statuses: HTTP status of every request.
            probabilities: Probabilities of all documents: `(documents, num_labels)`.
            measured: The runtime's timings and numbers of tokens.
            reviews: Number of documents that a person should review.
        """
        if not self._counting:
            return
        self.requests(statuses, probabilities, measured.tokens, reviews, sum(measured.by_companion))
        self._batch.observe(len(statuses))
        if len(probabilities):
            self._tokenizer.observe(measured.tokenizer_s)
            self._model.observe(measured.model_s)

    def requests(
        self,
        statuses: Sequence[int],
        probabilities: FloatArray,
        num_tokens: Sequence[int],
        reviews: int,
        num_by_companion: int,
    ) -> None:
        """Count answered requests and their documents.

        Args:
            statuses: HTTP status of every request.
            probabilities: Probabilities of all documents: `(documents, num_labels)`.
            num_tokens: Number of tokens of every document that the model read.
            reviews: Number of documents that a person should review.
            num_by_companion: Number of documents that the companion answered alone.
        """
        if not self._counting:
            return
        for status, count in collections.Counter(statuses).items():
            self._requests[status].inc(count)
        self._reviews.inc(reviews)
        self._tiers[COMPANION].inc(num_by_companion)
        self._tiers[MODEL].inc(len(probabilities) - num_by_companion)
        if len(probabilities):
            for label, count in collections.Counter(probabilities.argmax(axis=1).tolist()).items():
                self._predictions[label].inc(count)
            for probability in probabilities.max(axis=1).tolist():
                self._confidence.observe(probability)
            for tokens in num_tokens:
                self._tokens.observe(tokens)

    def queued(self, tokenizer_s: float, queue_s: float) -> None:
        """Count a request of the native server: its time in the tokenizer and in the queue."""
        if self._counting:
            self._tokenizer.observe(tokenizer_s)
            self._queue.observe(queue_s)

    def computed_texts(self, num_texts: int, seconds: float) -> None:
        """Count a batch of the native server: its number of documents, and the time that it took."""
        if self._counting:
            self._batch.observe(num_texts)
            self._model.observe(seconds)


def _create_files(directory: Path) -> None:
    """Create this worker's files and have the library count in them, even if a dead process had the same PID."""
    from prometheus_client import values

    worker = f"{os.getpid()}-{time.time_ns()}"
    for kind in _KINDS:
        file = directory / f"{kind}_{worker}.db"
        # Written in full, where the library would leave a sparse file: on a full disk, the first access to a missing
        # page would end the process. It appears when complete, since an empty file cannot be read.
        files.write_atomically(file, bytes(_FILE_BYTES))
    environment.set_prometheus_dir(directory)
    values.ValueClass = values.MultiProcessValue(lambda: worker)  # type: ignore[no-untyped-call]


class _WorkerCollector:
    """Collector of the metrics of all workers of a server, dead ones included, and of the number of workers."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> "Iterator[Metric]":
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
        from prometheus_client.multiprocess import MultiProcessCollector

        # Not with the library's own search, which treats a `[` in the path as a pattern.
        paths = [str(file) for file in self._directory.glob("*.db")]
        yield from MultiProcessCollector.merge(paths)  # type: ignore[no-untyped-call]
        prefix = f"{_KINDS[-1]}_"
        pids = [file.name.removeprefix(prefix).partition("-")[0] for file in self._directory.glob(f"{prefix}*.db")]
        alive = sum(Path("/proc", pid).exists() for pid in pids)
        yield GaugeMetricFamily("newsbert_workers", "Live workers.", alive)
        yield CounterMetricFamily("newsbert_worker_starts", "Started workers.", len(pids))


def page(directory: Path) -> str:
    """Return the metrics of all workers, dead ones included, in Prometheus's text format.

    Args:
        directory: The server's directory of metrics.
    """
    from prometheus_client import generate_latest

    return generate_latest(_WorkerCollector(directory)).decode()
