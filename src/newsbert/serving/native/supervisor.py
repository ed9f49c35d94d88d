"""Supervision of the native server: start its workers, start dead ones again, stop them all.

The supervisor makes one socket per worker on the same address; the kernel divides connections between them. It keeps
these sockets open: connections that a dead worker had not accepted wait for the next one.
"""

import collections
import contextlib
import dataclasses
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import util
from pathlib import Path
from typing import Any

from newsbert import errors
from newsbert.bundle.bundle import Bundle
from newsbert.core.environment import child_environment
from newsbert.core.installation import MissingExtraError
from newsbert.core.processes import die_with_parent
from newsbert.core.settings import ServeSettings
from newsbert.errors import NewsbertError, ServingError, UsageError
from newsbert.serving import metrics, metrics_endpoint
from newsbert.serving.endpoints import Endpoints, check_origin, reserved_endpoints
from newsbert.serving.native.worker_options import WorkerOptions
from newsbert.serving.server_events import RepeatFilter, ServerEvent

MODULES = ("uvicorn", "httptools", "uvloop", "python_multipart", "prometheus_client")
"""Modules that the server needs beside what every newsbert has."""

_METRICS_DIR, _OPTIONS_FILE = "metrics", "worker.json"
_HEARTBEAT_TIMEOUT_S = 30.0
"""Seconds without a sign of life after which a worker is killed."""

_MAX_RESTART_DELAY_S = 30.0
_STOP_MARGIN_S = 2.0
_LOG_HINT = "see all of its log: newsbert serve locally --debug"


class Worker:
    """A worker process that is started again when it dies.

    Args:
        number: Its number among the workers.
        command: Its command line.
        listener: The socket that it serves on.
        on_log: Called with every line that it writes beside events.
        on_problem: Called with every problem.
    """

    def __init__(
        self,
        number: int,
        command: Sequence[str],
        listener: socket.socket,
        on_log: Callable[[str], None],
        on_problem: Callable[[ServerEvent], None],
    ) -> None:
        self._number, self._command, self._listener = number, command, listener
        self._on_log, self._on_problem = on_log, on_problem
        self._stopping = threading.Event()
        self._starting = threading.Lock()
        self._tail: collections.deque[str] = collections.deque(maxlen=50)
        self.error: NewsbertError | None = None
        self.ready = threading.Event()
        self.last_sign_s = time.monotonic()
        self.process = self._start()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def terminate(self) -> None:
        """Let it answer what was sent, and end."""
        with self._starting:  # no other process is started from now on
            self._stopping.set()
        self.process.terminate()

    def kill(self) -> None:
        """End it at once."""
        self._stopping.set()
        self.process.kill()

    def join(self, timeout_s: float) -> bool:
        """Wait until it has ended; return whether it has."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def find_reason(self) -> str:
        """Return the most likely reason of its end among the lines that it wrote."""
        lines = list(self._tail)
        error_lines = [line for line in lines if "Error" in line]
        return (error_lines or lines or ["it wrote nothing"])[-1].strip()

    def _start(self) -> "subprocess.Popen[str]":
        descriptor = self._listener.fileno()
        return subprocess.Popen(
            [*self._command, str(descriptor)],
            pass_fds=[descriptor],
            # Otherwise every thread has its own heap, and all of them retain memory after a burst of large requests.
            env=child_environment(MALLOC_ARENA_MAX="2", PYTHONUNBUFFERED="1"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # Ctrl+C is for the supervisor alone
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - it makes one system call and nothing else
        )

    def _watch(self) -> None:
        delay_s, has_answered = 0.0, False
        while True:
            self._read_output()
            code = self.process.wait()
            was_ready = self.ready.is_set()
            self.ready.clear()
            if self._stopping.is_set() or self.error is not None:
                return
            has_answered |= was_ready
            if not has_answered:  # as it is configured, it never will
                message = f"a worker ended while it started ({_describe_exit(code)}): {self.find_reason()}"
                self.error = ServingError(message, _LOG_HINT)
                return
            delay_s = 0.0 if was_ready else min(_MAX_RESTART_DELAY_S, max(0.5, 2 * delay_s))
            message = f"worker {self._number} ended ({_describe_exit(code)}) and is started again"
            message += f" in {delay_s:g} s" if delay_s else ""
            self._on_problem(ServerEvent("worker-died", message, details={"worker": self._number}))
            self._stopping.wait(delay_s)
            with self._starting:
                if self._stopping.is_set():
                    return
                self.last_sign_s = time.monotonic()
                self.process = self._start()

    def _read_output(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in stream:
                text = line.rstrip()
                message = _parse_message(text)
                if message is None:
                    self._tail.append(text)
                    self._on_log(f"worker {self._number} {text}")
                elif "failed" in message:
                    self.error = errors.from_document(message["failed"])
                elif "event" in message:
                    details = {"worker": self._number, **message["details"]}
                    self._tail.append(message["message"])
                    self._on_problem(
                        ServerEvent(message["event"], message["message"], message["level"], details=details)
                    )
                else:
                    self.last_sign_s = time.monotonic()
                    if "ready" in message:
                        self.ready.set()


class Server:
    """A running native server.

    Args:
        workers: Its workers.
        address: Its endpoints.
        listeners: The sockets that the workers serve on.
        settings: Settings for monitoring and shutdown.
        work: Its directory: a file `ready` in it is new while all workers answer.

    Attributes:
        address: Its endpoints.
        key_file: `None`: TorchServe alone has one.
        signed_by: The trusted key that signed the model.
    """

    key_file: Path | None = None
    signed_by: str | None = None

    def __init__(
        self,
        workers: Sequence[Worker],
        address: Endpoints,
        listeners: Sequence[socket.socket],
        settings: ServeSettings,
        work: Path,
    ) -> None:
        self._ready_file = work / "ready"
        self.address = address
        self._workers, self._listeners, self._settings = workers, listeners, settings
        self._last_ready_s = time.monotonic()

    def wait_ready(self, timeout_s: float, stop: threading.Event) -> bool:
        """Wait until all workers answer, or `stop` is set; return whether they answer.

        Raises:
            NewsbertError: If the model cannot be loaded, or it takes longer than `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while not stop.wait(0.01):
            for worker in self._workers:
                if worker.error is not None:
                    raise worker.error
            if all(worker.ready.is_set() for worker in self._workers):
                self._ready_file.touch()
                return True
            if time.monotonic() > deadline:
                reason = self._workers[0].find_reason()
                raise ServingError(f"no answer after {timeout_s:g} s: {reason}", _LOG_HINT)
        return False

    def check(self) -> None:
        """Check that a worker answers, and kill workers that give no sign of life; call this at least once a second.

        Raises:
            NewsbertError: If no worker answers for too long, or the model cannot be loaded any more.
        """
        now = time.monotonic()
        for worker in self._workers:
            if worker.error is not None:
                raise worker.error
            limit_s = min(_HEARTBEAT_TIMEOUT_S, self._settings.unresponsive_timeout_s)
            if worker.ready.is_set() and now - worker.last_sign_s > limit_s:
                worker.process.kill()  # its thread starts another
        if all(worker.ready.is_set() for worker in self._workers):
            self._ready_file.touch()
        if any(worker.ready.is_set() for worker in self._workers):
            self._last_ready_s = now
        elif now - self._last_ready_s > self._settings.unresponsive_timeout_s:
            limit_s = self._settings.unresponsive_timeout_s
            reason = self._workers[0].find_reason()
            raise ServingError(f"no worker has answered for {limit_s:g} s: {reason}", "start it again")

    def stop(self) -> None:
        """Answer what was sent, then end all workers; a second Ctrl+C ends them at once."""
        for listener in self._listeners:
            listener.close()  # the worker's own socket is the last one then
        try:
            self._ready_file.unlink(missing_ok=True)
            for worker in self._workers:
                worker.terminate()
            deadline = time.monotonic() + self._settings.drain_s + _STOP_MARGIN_S
            for worker in self._workers:
                worker.join(max(0.0, deadline - time.monotonic()))
        finally:
            for worker in self._workers:
                worker.kill()
            for worker in self._workers:
                worker.join(5)


@contextlib.contextmanager
def serving(
    bundle: Bundle,
    name: str,
    settings: ServeSettings,
    work: Path,
    on_log: Callable[[str], None],
    on_problem: Callable[[ServerEvent], None] = lambda problem: None,
) -> Iterator[Server]:
    """Serve a bundle until the block ends.

    Args:
        bundle: The model's bundle.
        name: The model's name in answers.
        settings: Host, port, workers and limits.
        work: An empty directory for the server's own files.
        on_log: Called with every line that a worker writes.
        on_problem: Called with every problem.

    Raises:
        NewsbertError: If the server cannot be started.
    """
    for module in MODULES:
        if util.find_spec(module) is None:
            raise MissingExtraError(module, "native")
    if settings.grpc_port is not None and util.find_spec("grpc") is None:
        raise MissingExtraError("grpc", "native")
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise UsageError("--tls-cert and --tls-key go together", "give both, or none for HTTP without encryption")
    check_origin(settings.cors_origin)
    (work / _METRICS_DIR).mkdir()
    report = RepeatFilter(on_problem)
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(reserved_endpoints(settings))
        options = WorkerOptions.make(bundle, name, settings, address, work / _METRICS_DIR)
        options_file = work / _OPTIONS_FILE
        options_file.write_text(json.dumps(dataclasses.asdict(options)), encoding="utf-8")
        command = [sys.executable, "-m", "newsbert.serving.native.worker", str(options_file)]
        listeners = [stack.enter_context(_listen(address)) for _ in range(settings.workers)]
        stack.enter_context(
            metrics_endpoint.answering(
                address.metrics_host, address.metrics_port, lambda: metrics.page(work / _METRICS_DIR)
            )
        )
        workers = [Worker(number, command, listener, on_log, report) for number, listener in enumerate(listeners)]
        server = Server(workers, address, listeners, settings, work)
        server.signed_by = bundle.signed_by
        try:
            yield server
        finally:
            server.stop()


def _listen(address: Endpoints) -> socket.socket:
    """Return a socket of a worker, which listens only when the worker is ready."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((address.host, address.port))
    return listener


def _parse_message(line: str) -> dict[str, Any] | None:
    """Return the message in a line; `None` for what a library writes."""
    if not line.startswith("{"):
        return None
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    return signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"


def _end_with_parent() -> None:
    """Let the kernel end the worker when the supervisor is killed (Linux)."""
    die_with_parent(signal.SIGTERM)
