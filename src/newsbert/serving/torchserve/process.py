"""A TorchServe process: its readiness, monitoring and shutdown."""

import collections
import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from newsbert.core.settings import ServeSettings
from newsbert.errors import ServingError
from newsbert.serving import auth, probe
from newsbert.serving.endpoints import Endpoints
from newsbert.serving.heartbeat import Heartbeat
from newsbert.serving.server_events import ServerEvent
from newsbert.serving.torchserve.configuration import ACTIVITY_DIR
from newsbert.serving.torchserve.log_events import LogMonitor, LogRecord

_PROBE_AFTER_S = 10

_LAST_REQUESTS = 4
_FULL_QUEUE_S = 0.1
_POLL_S = 0.01

_READ_S = 0.5
"""Time that clients have to read their answers before the end: TorchServe's sockets drop what is not sent by then."""

_LOG_HINT = "see all of its log: newsbert serve locally --debug"

_STARTED_MARKER = "Model server started."
_FATAL_MARKERS = ("Failed to load model", "Backend worker process died")


class Server:
    """A running TorchServe.

    Args:
        process: The Java frontend, in a session of its own.
        address: Its endpoints.
        work: Its private directory.
        settings: Settings for monitoring and shutdown.
        batch_delay_s: Time that a batch waits to fill.
        on_log: Called with every line that it logs.
        on_problem: Called with every problem that it has.
    """

    def __init__(
        self,
        process: "subprocess.Popen[str]",
        address: Endpoints,
        work: Path,
        settings: ServeSettings,
        batch_delay_s: float,
        on_log: Callable[[str], None],
        on_problem: Callable[[ServerEvent], None],
    ) -> None:
        self.address = address
        self.signed_by: str | None = None
        self.management = work / auth.MANAGEMENT_SOCKET
        self.key_file = work / auth.KEY_FILE if settings.token_auth else None
        self._process = process
        self._settings = settings
        self._batch_delay_s = batch_delay_s
        self._activity = Heartbeat(work / ACTIVITY_DIR)
        self._on_log = on_log
        self._problems = LogMonitor(on_problem)
        self._tail: collections.deque[str] = collections.deque(maxlen=200)
        self._load_failed = False
        self._started = False
        self._ready = False
        self._last_answer = 0
        self._silent_s = 0.0
        self._last_check = time.monotonic()
        self._probe: threading.Thread | None = None
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def wait_ready(self, timeout_s: float, stop: threading.Event) -> bool:
        """Wait until the model answers a request, or `stop` is set; return whether it answered.

        Raises:
            ServingError: If the server stops, the model cannot be loaded, or it takes longer than `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while not stop.wait(0.05):
            self.check_process()
            if self._load_failed:
                raise ServingError(f"the model cannot be loaded: {self._find_reason()}", _LOG_HINT)
            with contextlib.suppress(ServingError):
                probe.ask(self.address.url, self.key_file, 10)
                self._ready = True
            if self._ready and self._started:  # the gRPC interfaces start last
                self._record_answer()
                self._problems.started = True
                return True
            if time.monotonic() > deadline:
                raise ServingError(f"no answer after {timeout_s:g} s: {self._find_reason()}", _LOG_HINT)
        return False

    def check(self) -> None:
        """Check that the server runs and its model answers; call this at least once a second.

        An idle model gets a probe from time to time.

        Raises:
            ServingError: If the server has stopped by itself, or its workers are lost.
        """
        self.check_process()
        self._problems.flush()
        now = time.monotonic()
        # At most a second per call: a suspended supervisor cannot know about the time in between.
        self._silent_s += min(now - self._last_check, 1.0)
        self._last_check = now
        last_answer = self._activity.last()
        if last_answer != self._last_answer:
            self._last_answer = last_answer
            self._record_answer()
        elif self._silent_s > self._settings.unresponsive_timeout_s:
            self._ready = False  # no worker is left to answer the requests in flight
            raise ServingError(
                f"the model has not answered for {self._settings.unresponsive_timeout_s:g} s: {self._find_reason()}",
                "start it again",
            )
        elif self._silent_s > min(_PROBE_AFTER_S, self._settings.unresponsive_timeout_s / 3) and (
            self._probe is None or not self._probe.is_alive()
        ):
            self._probe = threading.Thread(target=self._send_probe, daemon=True)
            self._probe.start()

    def stop(self) -> None:
        """Answer the requests in flight, then stop the frontend and its workers, and wait for their end."""
        group = self._process.pid
        try:
            if self._ready and self._settings.drain_s and self._process.poll() is None:
                self._drain()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
            self._process.wait()
            self._reader.join(2)
            assert self._process.stdout is not None
            self._process.stdout.close()

    def _drain(self) -> None:
        """Answer the requests in flight, and refuse later ones with a 503, for at most the drain limit.

        Requests wait in TorchServe's queue in order, and cannot be observed there. So a last request goes behind them:
        once it is answered, all earlier requests have left the queue. TorchServe cannot stop listening, so new
        connections get a 503 until the end.
        """
        deadline = time.monotonic() + self._settings.drain_s
        for _ in range(_LAST_REQUESTS):  # several, since a full queue refuses one
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                break
            with contextlib.suppress(ServingError):
                probe.ask(self.address.url, self.key_file, left_s)
                break
            time.sleep(_FULL_QUEUE_S)
        self._activity.close()
        last_busy = time.monotonic()
        while self._process.poll() is None and time.monotonic() < deadline:
            if self._activity.busy():
                last_busy = time.monotonic()
            elif time.monotonic() - last_busy > self._batch_delay_s + _READ_S:
                return
            time.sleep(_POLL_S)

    def _record_answer(self) -> None:
        self._silent_s = 0.0
        self._tail.clear()  # the server has recovered from these errors

    def _send_probe(self) -> None:
        with contextlib.suppress(ServingError):
            probe.ask(self.address.url, self.key_file, _PROBE_AFTER_S)
            self._record_answer()

    def check_process(self) -> None:
        """Check that the process runs.

        Raises:
            ServingError: If it has stopped by itself.
        """
        code = self._process.poll()
        if code is not None:
            self._reader.join(2)
            raise ServingError(
                f"TorchServe stopped by itself (exit code {code}): {self._find_reason()}", "start it again"
            )

    def _read_log(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            record = LogRecord.parse(line.rstrip())
            text = record.text
            self._tail.extend(filter(None, [record.message, record.exception.partition("\n")[0]]))
            self._started |= text == _STARTED_MARKER
            if any(marker in text for marker in _FATAL_MARKERS):
                self._load_failed = True
            self._on_log(text)
            self._problems.read(record)
        self._problems.flush(at_once=True)

    def _find_reason(self) -> str:
        """Return the most likely reason among the lines logged since the last answer."""
        lines = list(self._tail)
        error_lines = [line for line in lines if "Error" in line or "Exception" in line]
        return (error_lines or lines or ["it logged nothing"])[-1].strip()
