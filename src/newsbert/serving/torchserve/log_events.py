"""Problems in a server's log, one event per problem; invalid requests are not problems.

TorchServe's frontend logs one JSON object per line, see `log4j2.xml`: its own warnings and errors, restarts of workers,
and every line that a worker prints. A worker's traceback is many objects there, and one event here.
"""

import json
import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from newsbert.serving.server_events import RepeatFilter, ServerEvent

_MARK = "newsbert-problem "
_WORKER_LOGGER = "MODEL_LOG"
_RETRY = re.compile(r"Retry worker: (\S+) in (\d+) seconds")
_TRACEBACK = "Traceback (most recent call last):"
_CHAIN_PREFIXES = ("The above exception was", "During handling of the above exception")
_TRACEBACK_TIMEOUT_S = 0.5
# This logger reports invalid forms and paths, and clients that disconnect, as errors.
_REQUEST_LOGGER = "HttpRequestHandler"
# Consequences of a worker's death, which another line reports.
_CONSEQUENCE_PREFIXES = ("Load model failed: ", "Auto recovery failed again")
_JVM = re.compile(r'Exception in thread "|java\.lang\.OutOfMemoryError|# A fatal error has been detected')


@dataclass(frozen=True)
class LogRecord:
    """A line of TorchServe's log."""

    time: str
    level: str
    logger: str
    thread: str
    message: str
    exception: str = ""

    @classmethod
    def parse(cls, line: str) -> "LogRecord":
        """Parse a line; output that is not in the frontend's form, such as the JVM's, is all message."""
        try:
            fields = json.loads(line)
            return cls(**{**fields, "exception": fields["exception"].strip()})
        except (ValueError, TypeError, LookupError):
            return cls("", "", "", "", line)

    @property
    def text(self) -> str:
        """The record as lines of a readable log."""
        if not self.logger:
            return self.message
        source = "worker" if self.logger == _WORKER_LOGGER else self.logger
        return "\n".join(filter(None, [f"{self.time} {self.level:5} {source} {self.message}", self.exception]))


class LogMonitor:
    """A detector of problems in a server's log.

    Args:
        on_problem: Called with every problem, in the thread that calls `read` or `flush`.
        clock: Monotonic clock, in seconds.
    """

    def __init__(self, on_problem: Callable[[ServerEvent], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.started = False
        self._report = RepeatFilter(on_problem, clock)
        self._clock = clock
        self._lock = threading.Lock()
        self._tracebacks: dict[str, tuple[float, list[str]]] = {}

    def read(self, record: LogRecord) -> None:
        """Process the next record."""
        with self._lock:
            if record.logger == _WORKER_LOGGER:
                self._read_worker_line(record)
            elif retry := _RETRY.match(record.message):
                worker, wait_s = retry.groups()
                if self.started:  # before, the reason itself is reported, and no worker is restarted
                    message = f"worker {worker} died and is started again in {wait_s} s"
                    self._report(ServerEvent("worker-died", message, details={"worker": worker}))
            elif record.message.startswith(_CONSEQUENCE_PREFIXES):
                pass
            elif record.level in {"WARN", "ERROR", "FATAL"} and not _is_client_error(record):
                first = record.exception.partition("\n")[0]
                message = ": ".join(filter(None, [record.message.strip(), first]))
                details = {"logger": record.logger, **({"traceback": record.exception} if record.exception else {})}
                self._report(ServerEvent("torchserve", message, record.level, record.time, details))
            elif not record.logger and _JVM.match(record.message):
                self._report(ServerEvent("java", record.message))

    def flush(self, at_once: bool = False) -> None:
        """Report tracebacks that have got no new line for a while; call this at least once a second."""
        with self._lock:
            for thread, (last, _) in list(self._tracebacks.items()):
                if at_once or self._clock() - last > _TRACEBACK_TIMEOUT_S:
                    self._report_traceback(thread)

    def _read_worker_line(self, record: LogRecord) -> None:
        message, thread = record.message, record.thread
        if message.startswith(_MARK):
            event = json.loads(message.removeprefix(_MARK))
            details = {"worker": thread.removesuffix("-stdout"), **event["details"]}
            self._report(ServerEvent(event["event"], event["message"], "ERROR", record.time, details))
            return
        lines = self._tracebacks[thread][1] if thread in self._tracebacks else []
        if message == _TRACEBACK or (lines and _continues_traceback(lines, message)):
            self._tracebacks[thread] = (self._clock(), [*lines, message])
        elif lines:
            self._report_traceback(thread)

    def _report_traceback(self, thread: str) -> None:
        _, lines = self._tracebacks.pop(thread)
        message = next((line for line in reversed(lines) if line and not line.startswith(" ")), lines[-1])
        details = {"worker": re.sub("-std(out|err)$", "", thread), "traceback": "\n".join(lines)}
        self._report(ServerEvent("worker-failed", message, details=details))


def report_event(event: str, message: str, requests: int, traceback: str) -> None:
    """Report a problem of this worker to the server's operator, in one line.

    Args:
        event: Kind of the problem.
        message: Description.
        requests: Number of failed requests.
        traceback: Its traceback.
    """
    content = {"event": event, "message": message, "details": {"requests": requests, "traceback": traceback}}
    logging.getLogger(__name__).error("%s%s", _MARK, json.dumps(content))


def _is_client_error(record: LogRecord) -> bool:
    """Return whether only a request or its connection failed, as opposed to the JVM during a request."""
    raised = record.exception.partition("\n")[0].partition(":")[0]
    return record.logger == _REQUEST_LOGGER and bool(raised) and not raised.endswith("Error")


def _continues_traceback(lines: list[str], line: str) -> bool:
    """Return whether `line` continues the traceback of `lines`: a frame, the exception, or a chained exception."""
    if line == "" or line.startswith((" ", *_CHAIN_PREFIXES)):
        return True
    return lines[-1].startswith(" ") or lines[-1] == _TRACEBACK
