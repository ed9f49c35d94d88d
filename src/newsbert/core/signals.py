"""Signals, handled in a thread.

Python calls a signal handler in the main thread, between any two of its operations. If the main thread writes to a
stream or holds a lock at that moment, a handler that needs the same fails or waits for ever.
"""

import contextlib
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def relay_signals(on_signal: Callable[[int], None], max_relayed: int | None = None) -> Iterator[None]:
    """Call a function in another thread for every SIGINT and SIGTERM.

    Args:
        on_signal: Called with the number of the signal.
        max_relayed: Number of signals after which a signal raises `KeyboardInterrupt` in the main thread instead.
    """
    stop_relaying = _relay(on_signal, max_relayed)
    try:
        yield
    finally:
        stop_relaying()


def stop_on_signals() -> threading.Event:
    """Return an event that the first SIGINT or SIGTERM sets; a second one raises `KeyboardInterrupt`."""
    stop = threading.Event()
    _relay(lambda _number: stop.set(), max_relayed=1)
    return stop


def _relay(on_signal: Callable[[int], None], max_relayed: int | None) -> Callable[[], None]:
    """Begin to relay signals, and return the function that ends it."""
    signals: queue.SimpleQueue[int | None] = queue.SimpleQueue()  # its `put` is safe in a signal handler
    num_signals = 0

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal num_signals
        num_signals += 1
        if max_relayed is not None and num_signals > max_relayed:
            raise KeyboardInterrupt
        signals.put(number)

    def relay() -> None:
        for number in iter(signals.get, None):
            on_signal(number)

    thread = threading.Thread(target=relay, daemon=True, name="signals")
    thread.start()
    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop_relaying() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signals.put(None)
        thread.join()

    return stop_relaying
