"""The lane in which a server's explanations are made: beside the answers, and never before them.

An explanation takes as long as some hundreds of answers, and TorchServe gives a worker its next batch only when it has
answered the last one. So a thread beside it makes explanations, one after another, in pieces between which every answer
may pass. A batch waits for its explanations only while nobody else waits for an answer. Who has to come again
for one finds it where it was left.
"""

import collections
import contextlib
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from typing import Generic, TypeVar

from newsbert import listeners

MAX_WAITING = 32
"""Explanations that wait for their turn; those above it are refused."""

MAX_KEPT = 128
"""Explanations that are there for who comes again, those that wait included."""

MAX_CHARACTERS = 1024 * 1024
"""Of the texts of all of these together."""

SHORT_WAIT_S, LONG_WAIT_S = 0.03, 15.0
"""How long a batch waits for its explanations: where others may wait for an answer, and where nobody does."""

_POLL_S = 0.01
Made = TypeVar("Made")


class FullError(Exception):
    """More explanations wait than are allowed."""


class Lane(Generic[Made]):
    """A thread that makes explanations, and answers that go before it."""

    def __init__(self) -> None:
        self._computing = threading.Lock()
        self._clear = threading.Event()
        self._clear.set()
        self._changed = threading.Condition()
        self._waiting: collections.deque[tuple[Callable[[], Made], Future[Made]]] = collections.deque()
        self._entries: collections.OrderedDict[Hashable, tuple[Future[Made], int]] = collections.OrderedDict()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def before_it(self) -> Iterator[None]:
        """Compute answers: the lane ends its piece and stands still until this is done."""
        self._clear.clear()
        try:
            with self._computing:
                yield
        finally:
            self._clear.set()

    @contextlib.contextmanager
    def piece(self) -> Iterator[None]:
        """In the lane: compute a piece of an explanation, when nobody computes answers."""
        while True:
            self._clear.wait()
            with self._computing:
                if self._clear.is_set():
                    yield
                    return

    def submit(self, key: Hashable, characters: int, make: Callable[[], Made]) -> "Future[Made]":
        """Have an explanation made, unless it is there already.

        Args:
            key: What tells it from others.
            characters: How long its text is.
            make: Makes it, in pieces.

        Raises:
            FullError: If too many wait, or their texts are too long together.
        """
        with self._changed:
            if key in self._entries:
                future, _ = self._entries[key]
                if not (future.done() and future.exception()):
                    self._entries.move_to_end(key)
                    return future
                del self._entries[key]
            self._make_room(characters)
            future = Future()
            self._entries[key] = future, characters
            self._waiting.append((make, future))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True, name="explanations")
                self._thread.start()
            self._changed.notify()
        return future

    def _make_room(self, characters: int) -> None:
        """Forget the oldest that are made.

        Raises:
            FullError: If that is not enough.
        """
        made = (key for key, (future, _) in list(self._entries.items()) if future.done())
        while len(self._entries) >= MAX_KEPT or self._characters() + characters > MAX_CHARACTERS:
            oldest = next(made, None)
            if oldest is None:
                break
            del self._entries[oldest]
        too_long = self._entries and self._characters() + characters > MAX_CHARACTERS
        if too_long or len(self._waiting) >= MAX_WAITING:
            raise FullError

    def _characters(self) -> int:
        return sum(characters for _, characters in self._entries.values())

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                make, future = self._waiting.popleft()
            try:
                future.set_result(make())
            except Exception as error:  # whoever asked for it is told
                future.set_exception(error)


def wait(futures: "list[Future[Made]]", requests: int, nobody_else: bool) -> None:
    """Wait until explanations are made, and no longer than whoever else asks can wait.

    Args:
        futures: The explanations.
        requests: How many requests the batch has.
        nobody_else: Whether all of them wait for explanations, each on a connection of its own.
    """
    began = time.monotonic()
    while not all(future.done() for future in futures):
        waited_s = time.monotonic() - began
        if waited_s > SHORT_WAIT_S and not (nobody_else and waited_s < LONG_WAIT_S and _alone(requests)):
            return
        with contextlib.suppress(TimeoutError):
            next(future for future in futures if not future.done()).exception(timeout=_POLL_S)


def _alone(requests: int) -> bool:
    """Tell whether the server has no more connections than these requests: who waits for an answer has one."""
    connections = listeners.num_connections(os.getppid())
    return connections is not None and connections <= requests
