"""Scheduling of texts on the cores of a server.

The texts of all requests wait in one queue. A core that is free takes at once what fits its budget of tokens: the text
that has waited longest, and texts of about the same length. There is no delay to fill a batch, and no core waits for
another. A single text that meets idle cores is computed with all of them, in the thread of the event loop: a change of
threads would take longer than it saves.
"""

import asyncio
import collections
import concurrent.futures
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from newsbert.core.types import FloatArray
from newsbert.inference.runtime import SUB_BATCH_TOKENS, EncodedTexts, InferenceTimings, Runtime

WINDOW_TEXTS = 64
"""Number of waiting texts from which a core selects those of about the same length."""

_BATCHES_PER_CORE, _MIN_TOKENS = 2, 32
"""Number of batches into which a core divides its part of all texts, and minimum of tokens of a batch.

Their answers lead to the next requests while the others are computed, so that a core does not wait for them.
"""

_FIRST_TOKEN_S, _SPEED_WEIGHT = 1e-4, 0.1
"""Seconds that a core takes for a token, before any was measured; and the weight of a batch in the moving average."""


@dataclass(eq=False, slots=True)
class Job:
    """The texts of one request.

    Attributes:
        encoded: The texts.
        probabilities: `(texts, num_labels)`.
        num_missing: Number of texts without probabilities.
        future: Receives the job when all texts have probabilities.
        measured: Tokens of the texts that the model reads, and the seconds of the batches that had one of them.
        queued_s: Monotonic time when it was queued.
        started_s: Monotonic time when a core began to compute the first text; 0 before.
        ended_s: Monotonic time when the last text was computed; 0 before.
    """

    encoded: EncodedTexts
    probabilities: FloatArray
    num_missing: int
    future: "asyncio.Future[Job] | concurrent.futures.Future[Job]"
    measured: InferenceTimings = field(default_factory=InferenceTimings)
    queued_s: float = 0.0
    started_s: float = 0.0
    ended_s: float = 0.0


@dataclass(eq=False, slots=True)
class _Text:
    job: Job
    index: int
    num_tokens: int


_Result = tuple[list[_Text], "FloatArray | Exception", float, float]


class Scheduler:
    """Threads that compute the texts of all requests, one for every core that can compute a batch of its own.

    Args:
        runtime: The model.
        num_labels: Number of its labels.
        on_batch: Called in the event loop with the number of texts, and the seconds, of every computed batch.

    It is made and used in an event loop. `compute_in_background` alone is for other threads.
    """

    def __init__(
        self, runtime: Runtime, num_labels: int, on_batch: Callable[[int, float], None] = lambda texts, seconds: None
    ) -> None:
        self._runtime, self._num_labels, self._on_batch = runtime, num_labels, on_batch
        self._loop = asyncio.get_running_loop()
        self._arrived: list[tuple[Sequence[str], asyncio.Future[Job]]] = []
        self._num_cores = runtime.independent_cores
        self._token_s = _FIRST_TOKEN_S
        self._last_end_s = time.monotonic()
        self._changed = threading.Condition()
        # All below are guarded by `_changed`.
        self._waiting: collections.deque[_Text] = collections.deque()
        self._background: collections.deque[_Text] = collections.deque()
        self._num_tokens = 0
        self._num_computing = 0
        self._num_idle = self._num_cores
        self._results: list[_Result] = []
        self._closed = threading.Event()
        for number in range(self._num_cores):
            threading.Thread(target=self._work, daemon=True, name=f"core-{number}").start()

    @property
    def num_waiting_tokens(self) -> int:
        """Number of tokens that wait for a core."""
        return self._num_tokens

    def close(self) -> None:
        """End the threads. Texts that still wait are not computed; call this before the event loop is closed."""
        with self._changed:
            self._closed.set()
            self._changed.notify_all()

    def submit(self, sequences: Sequence[str]) -> "asyncio.Future[Job]":
        """Queue the prepared texts of a request.

        All requests that arrive in the same turn of the event loop are tokenized together.
        """
        future: asyncio.Future[Job] = self._loop.create_future()
        if not self._arrived:
            self._loop.call_soon(self._queue_arrived)
        self._arrived.append((sequences, future))
        return future

    def submit_encoded(self, encoded: EncodedTexts) -> "asyncio.Future[Job]":
        """Queue texts that the runtime has encoded."""
        future: asyncio.Future[Job] = self._loop.create_future()
        self._queue([self._make_job(encoded, future)])
        return future

    @property
    def stalled_s(self) -> float:
        """Seconds for which no batch has ended although texts wait; 0 if none wait."""
        return time.monotonic() - self._last_end_s if self._num_tokens + self._num_computing else 0.0

    def estimate_wait_s(self) -> float:
        """Return how long the waiting texts take, by the speed of the last batches."""
        return self._num_tokens * self._token_s / self._num_cores

    def compute_in_background(self, encoded: EncodedTexts) -> Job:
        """Compute texts that the runtime has encoded, and for which no request is made to wait.

        Call it from another thread than the event loop's; it blocks.
        """
        future: concurrent.futures.Future[Job] = concurrent.futures.Future()
        job = self._make_job(encoded, future)
        if job.num_missing:
            with self._changed:
                self._background.extend(_list_texts(job))
                self._changed.notify_all()
            future.result()
        return job

    def _make_job(self, encoded: EncodedTexts, future: "asyncio.Future[Job] | concurrent.futures.Future[Job]") -> Job:
        probabilities = encoded.answers
        if probabilities is None:
            probabilities = np.empty((len(encoded.ids), self._num_labels), np.float32)
        job = Job(encoded, probabilities, 0, future)
        job.measured.tokens = [len(text_ids) for text_ids in encoded.ids if text_ids]
        job.measured.by_companion = encoded.by_companion.tolist()
        job.num_missing = len(job.measured.tokens)
        job.queued_s = time.monotonic()
        return job

    def _queue_arrived(self) -> None:
        arrived, self._arrived = self._arrived, []
        arrived = [(sequences, future) for sequences, future in arrived if not future.done()]
        started = time.perf_counter()
        try:
            encoded = self._runtime.encode([text for sequences, _ in arrived for text in sequences])
        except Exception as error:  # every request gets an answer
            for _, future in arrived:
                future.set_exception(error)
            return
        tokenizer_s = time.perf_counter() - started
        jobs = []
        start = 0
        for sequences, future in arrived:
            jobs.append(self._make_job(encoded.part(start, start + len(sequences)), future))
            jobs[-1].measured.tokenizer_s = tokenizer_s
            start += len(sequences)
        self._queue(jobs)

    def _queue(self, jobs: list[Job]) -> None:
        texts = [text for job in jobs for text in _list_texts(job)]
        for job in jobs:
            if not job.num_missing:
                _set_result(job)
        if not texts:
            return
        with self._changed:
            if not self._num_tokens + self._num_computing:
                self._last_end_s = time.monotonic()
            alone = len(texts) == 1 and self._num_idle == self._num_cores and not self._waiting
            if not alone:
                self._waiting.extend(texts)
                self._num_tokens += sum(text.num_tokens for text in texts)
                self._changed.notify(len(texts))
        if alone:
            self._finish([self._compute(texts, all_cores=True)])

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._background and not self._closed.is_set():
                    self._changed.wait()
                if self._closed.is_set():
                    return
                self._num_idle -= 1
                batch = self._take()
            while batch:
                result = self._compute(batch, all_cores=False)
                with self._changed:
                    if self._closed.is_set():
                        return
                    self._results.append(result)
                    self._num_computing -= sum(text.num_tokens for text in batch)
                    if len(self._results) == 1:
                        self._loop.call_soon_threadsafe(self._collect)
                    batch = self._take()
                    self._num_idle += not batch

    def _take(self) -> list[_Text]:
        """Remove the texts of a batch from the queue: the first, and texts of about the same length."""
        if not self._waiting:
            batch = [self._background.popleft() for _ in range(_count_fitting(self._background))]
            self._num_computing += sum(text.num_tokens for text in batch)
            return batch
        # A part of all texts, those that other cores compute included.
        part = -(-(self._num_tokens + self._num_computing) // (self._num_cores * _BATCHES_PER_CORE))
        budget = min(SUB_BATCH_TOKENS, max(_MIN_TOKENS, part))
        window = [self._waiting.popleft() for _ in range(min(WINDOW_TEXTS, len(self._waiting)))]
        chosen = set(select_texts([text.num_tokens for text in window], budget))
        self._waiting.extendleft(window[index] for index in reversed(range(len(window))) if index not in chosen)
        batch = [window[index] for index in sorted(chosen)]
        num_tokens = sum(text.num_tokens for text in batch)
        self._num_tokens -= num_tokens
        self._num_computing += num_tokens
        return batch

    def _compute(self, batch: list[_Text], *, all_cores: bool) -> _Result:
        started = time.monotonic()
        try:
            ids = [text.job.encoded.ids[text.index] for text in batch]
            probabilities = self._runtime.compute(ids, _stack_companion(batch), all_cores=all_cores)
        except Exception as error:  # every request gets an answer
            return batch, error, started, time.monotonic() - started
        return batch, probabilities, started, time.monotonic() - started

    def _collect(self) -> None:
        with self._changed:
            results, self._results = self._results, []
        self._finish(results)

    def _finish(self, results: list[_Result]) -> None:
        self._last_end_s = time.monotonic()
        for batch, probabilities, started, seconds in results:
            self._on_batch(len(batch), seconds)
            token_s = seconds / sum(text.num_tokens for text in batch)
            self._token_s += _SPEED_WEIGHT * (token_s - self._token_s)
            for row, text in enumerate(batch):
                job = text.job
                if isinstance(probabilities, Exception):
                    if not job.future.done():
                        job.future.set_exception(probabilities)
                    continue
                job.probabilities[text.index] = probabilities[row]
                job.started_s = job.started_s or started
                job.ended_s = max(job.ended_s, started + seconds)
                job.measured.model_s = max(job.measured.model_s, seconds)
                job.num_missing -= 1
                if not job.num_missing:
                    _set_result(job)


def select_texts(num_tokens: Sequence[int], budget: int) -> list[int]:
    """Return the indices of the texts of a batch: the first one, and those that waste little on padding with it.

    Args:
        num_tokens: Number of tokens of every text, in the order in which they wait.
        budget: Maximum number of tokens of the batch, padding included, unless the first text alone has more.

    Returns:
        The indices of neighbours in the order of length, among them 0. No other choice of neighbours within the budget
        has more tokens without padding.
    """
    order = sorted(range(len(num_tokens)), key=num_tokens.__getitem__)
    first = order.index(0)
    sums = [0]
    for index in order:
        sums.append(sums[-1] + num_tokens[index])
    best, chosen = -1, order[first : first + 1]
    for last in range(first, len(order)):
        begin = max(0, last + 1 - max(1, budget // num_tokens[order[last]]))
        if begin > first:
            break
        if sums[last + 1] - sums[begin] > best:
            best, chosen = sums[last + 1] - sums[begin], order[begin : last + 1]
    return chosen


def _count_fitting(texts: Sequence[_Text]) -> int:
    """Return how many texts at the beginning fit a batch, at least one if there is one."""
    longest = 0
    for count, text in enumerate(texts):
        longest = max(longest, text.num_tokens)
        if count and (count + 1) * longest > SUB_BATCH_TOKENS:
            return count
    return len(texts)


def _list_texts(job: Job) -> list[_Text]:
    return [_Text(job, index, len(text_ids)) for index, text_ids in enumerate(job.encoded.ids) if text_ids]


def _stack_companion(batch: Sequence[_Text]) -> FloatArray | None:
    """Return the companion's answers to the texts of a batch: `(texts, num_labels)`; `None` without a companion."""
    rows = [text.job.encoded.companion[text.index] for text in batch if text.job.encoded.companion is not None]
    return np.stack(rows) if rows else None


def _set_result(job: Job) -> None:
    if not job.future.done():
        job.future.set_result(job)
