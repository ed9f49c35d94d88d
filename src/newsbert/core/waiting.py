"""Waiting for something that sends no notice."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def poll(check: Callable[[], T], timeout_s: float, interval_s: float = 0.1) -> T:
    """Call `check` until it returns something true or the time is over, at least once; return its last result."""
    deadline = time.monotonic() + timeout_s
    while not (result := check()) and time.monotonic() < deadline:
        time.sleep(interval_s)
    return result
