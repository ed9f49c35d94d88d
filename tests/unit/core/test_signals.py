"""Signals that arrive at any moment."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from newsbert.core.signals import relay_signals, stop_on_signals

WRITE = """
import sys
from newsbert.core.signals import relay_signals

lines = []
def note(number):
    print("signal", file=sys.stderr)
    lines.append(number)

with relay_signals(note):
    print("ready", flush=True)
    while len(lines) < 200:
        print("x" * 1000, file=sys.stderr)
"""


def test_a_signal_may_interrupt_a_write_to_the_stream_that_its_function_writes_to() -> None:
    command = [sys.executable, "-c", WRITE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.0005)
    assert process.returncode in {0, -signal.SIGINT}, process.returncode  # the last ones may come after the handlers


def test_a_function_that_holds_a_lock_is_no_trap() -> None:
    lock, done = threading.Lock(), threading.Event()

    def note(_number: int) -> None:
        with lock:
            done.set()

    with relay_signals(note):
        with lock:
            os.kill(os.getpid(), signal.SIGTERM)
        assert done.wait(30)


def test_the_signal_after_the_last_that_is_relayed_raises() -> None:
    numbers: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), relay_signals(numbers.append, max_relayed=1):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert numbers == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGINT) is before


def test_an_event_is_set_by_the_first_signal() -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        stop = stop_on_signals()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(30)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
