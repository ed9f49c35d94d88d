"""The lane in which a server's explanations are computed: beside its answers, and never before them.

An explanation takes as long as some hundreds of answers, and TorchServe gives a worker its next batch only when it has
answered the last one. So a thread computes explanations, one after another, in steps between which every answer may
pass. A batch waits for its explanations only while no other request waits for the worker. Whoever has to send a request
again finds its explanation where it was left.
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
"""Explanations that wait for their turn; more are refused."""

MAX_RESULTS = 128
"""Explanations that the lane holds for requests that are sent again, those that wait included."""

MAX_CHARACTERS = 1024 * 1024
"""Of the texts of all of these together."""

MAX_WAIT_S = 15.0
"""How long a batch waits for its explanations while no other request waits."""

_STEP_S = 0.03
"""How often a waiting batch looks whether another request waits."""

Result = TypeVar("Result")


class LaneFullError(Exception):
    """More explanations wait than are allowed."""


class Lane(Generic[Result]):
    """A thread that computes explanations, and gives way to answers."""

    def __init__(self) -> None:
        self._computing = threading.Lock()
        self._no_answers = threading.Event()
        self._no_answers.set()
        self._changed = threading.Condition()
        self._waiting: collections.deque[tuple[Callable[[], Result], Future[Result]]] = collections.deque()
        self._results: collections.OrderedDict[Hashable, tuple[Future[Result], int]] = collections.OrderedDict()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Compute answers in the block: the lane ends its step first, and stands still until the block ends."""
        self._no_answers.clear()
        try:
            with self._computing:
                yield
        finally:
            self._no_answers.set()

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Compute a step of an explanation in the block, when no answers are computed."""
        while True:
            self._no_answers.wait()
            with self._computing:
                if self._no_answers.is_set():
                    yield
                    return

    def submit(self, key: Hashable, num_characters: int, compute: Callable[[], Result]) -> "Future[Result]":
        """Have an explanation computed, unless the lane has it.

        Args:
            key: Names the explanation: the same key, the same result.
            num_characters: The length of its text.
            compute: Computes it, in steps.

        Raises:
            LaneFullError: If too many wait, or their texts are too long together.
        """
        with self._changed:
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

    def _make_room(self, num_characters: int) -> None:
        """Forget the oldest explanations that are complete.

        Raises:
            LaneFullError: If that is not enough.
        """
        complete = (key for key, (future, _) in list(self._results.items()) if future.done())
        while len(self._results) >= MAX_RESULTS or self._total_characters() + num_characters > MAX_CHARACTERS:
            oldest = next(complete, None)
            if oldest is None:
                break
            del self._results[oldest]
        too_long = self._results and self._total_characters() + num_characters > MAX_CHARACTERS
        if too_long or len(self._waiting) >= MAX_WAITING:
            raise LaneFullError

    def _total_characters(self) -> int:
        return sum(num_characters for _, num_characters in self._results.values())

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                compute, future = self._waiting.popleft()
            try:
                future.set_result(compute())
            except Exception as error:  # the request's answer says so
                future.set_exception(error)


def wait(futures: "Sequence[Future[Result]]", others_wait: Callable[[], bool]) -> None:
    """Wait until explanations are complete, or another request waits for the worker.

    Args:
        futures: The explanations.
        others_wait: Says whether another request waits.
    """
    deadline = time.monotonic() + MAX_WAIT_S
    while concurrent.futures.wait(futures, _STEP_S).not_done:
        if time.monotonic() > deadline or others_wait():
            return
