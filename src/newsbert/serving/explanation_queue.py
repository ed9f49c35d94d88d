"""The lane that computes a server's explanations: a background thread that gives way to predictions.

An explanation takes as long as some hundreds of predictions, and TorchServe gives a worker its next batch only when it
has answered the last one. So a thread computes explanations one after another, in steps. Predictions may run between
two steps. A batch waits for its explanations only while no other request waits for the worker. A client that retries
its request gets the explanation that the thread has computed meanwhile.
"""

import collections
import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

MAX_WAITING = 32
"""Maximum number of queued explanations; more are refused."""

MAX_RESULTS = 128
"""Maximum number of explanations that the lane stores for retried requests, queued ones included."""

MAX_CHARACTERS = 1024 * 1024
"""Maximum total length of the texts of all stored explanations."""

MAX_WAIT_S = 15.0
"""Maximum time that a batch waits for its explanations while no other request waits."""

_POLL_INTERVAL_S = 0.03
"""Interval at which a waiting batch checks for other requests."""

Result = TypeVar("Result")


class LaneFullError(Exception):
    """The error for an explanation that exceeds the limits of the lane."""


class LaneClosedError(Exception):
    """The error for an explanation that was not complete when its lane was closed."""


class Lane(Generic[Result]):
    """A thread that computes explanations, and gives way to predictions."""

    def __init__(self) -> None:
        self._compute_lock = threading.Lock()
        self._no_answers = threading.Event()
        self._no_answers.set()
        self._changed = threading.Condition()
        self._waiting: collections.deque[tuple[Callable[[], Result], Future[Result]]] = collections.deque()
        self._results: collections.OrderedDict[Hashable, tuple[Future[Result], int]] = collections.OrderedDict()
        self._thread: threading.Thread | None = None
        self._closed = False

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Compute predictions in the block: the lane finishes its step first, and pauses until the block ends."""
        self._no_answers.clear()
        try:
            with self._compute_lock:
                yield
        finally:
            self._no_answers.set()

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Compute a step of an explanation in the block, while no predictions are computed.

        Raises:
            LaneClosedError: If the lane is closed.
        """
        while True:
            self._no_answers.wait()
            if self._closed:
                raise LaneClosedError
            with self._compute_lock:
                if self._no_answers.is_set():
                    yield
                    return

    def submit(self, key: Hashable, num_characters: int, compute: Callable[[], Result]) -> "Future[Result]":
        """Queue an explanation, unless the lane has it already.

        Args:
            key: Identifies the explanation: equal keys have equal results.
            num_characters: Length of its text.
            compute: Computes the explanation, in steps.

        Raises:
            LaneFullError: If too many explanations are queued, or their texts are too long in total.
            LaneClosedError: If the lane is closed.
        """
        with self._changed:
            if self._closed:
                raise LaneClosedError
            if key in self._results:
                future, _ = self._results[key]
                if not (future.done() and future.exception()):
                    self._results.move_to_end(key)
                    return future
                del self._results[key]
            self._make_room(num_characters)
            future = Future()
            self._results[key] = future, num_characters
            self._waiting.append((compute, future))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True, name="explanations")
                self._thread.start()
            self._changed.notify()
        return future

    def close(self) -> None:
        """End the thread after its step. Explanations that are not complete fail with `LaneClosedError`.

        A thread must not outlive its owner: the tokenizer reads the environment, which crashes while another thread
        changes it.
        """
        with self._changed:
            self._closed = True
            for _, future in self._waiting:
                future.set_exception(LaneClosedError())
            self._waiting.clear()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _make_room(self, num_characters: int) -> None:
        """Remove the oldest complete explanations.

        Raises:
            LaneFullError: If that frees too little.
        """
        complete_keys = (key for key, (future, _) in list(self._results.items()) if future.done())
        while len(self._results) >= MAX_RESULTS or self._count_characters() + num_characters > MAX_CHARACTERS:
            oldest = next(complete_keys, None)
            if oldest is None:
                break
            del self._results[oldest]
        too_long = self._results and self._count_characters() + num_characters > MAX_CHARACTERS
        if too_long or len(self._waiting) >= MAX_WAITING:
            raise LaneFullError

    def _count_characters(self) -> int:
        return sum(num_characters for _, num_characters in self._results.values())

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                compute, future = self._waiting.popleft()
            try:
                future.set_result(compute())
            except Exception as error:  # the response reports it
                future.set_exception(error)


def wait(futures: "Sequence[Future[Result]]", others_wait: Callable[[], bool]) -> None:
    """Wait until explanations are complete, or another request waits for the worker.

    Args:
        futures: The explanations.
        others_wait: Returns whether another request waits.
    """
    deadline = time.monotonic() + MAX_WAIT_S
    while concurrent.futures.wait(futures, _POLL_INTERVAL_S).not_done:
        if time.monotonic() > deadline or others_wait():
            return
