"""Signal handlers of commands that run until they are stopped."""

import signal
import threading
from types import FrameType


def stop_on_signals() -> threading.Event:
    """Return an event that Ctrl+C and SIGTERM set; a second signal raises `KeyboardInterrupt`."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    return stop
