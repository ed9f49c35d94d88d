"""What goes wrong in a server, one record a problem; requests, also those that are wrong, are none.

TorchServe's frontend logs a JSON object a line, see `log4j2.xml`: its own warnings and errors, that a worker is started
again, and every line that a worker prints. A worker's traceback is a line each there, and one problem here.
"""

import json
import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

REPEAT_S = 10.0
"""A problem that happens again within this time is counted, and told of when it happens after it."""

_MARK = "newsbert-problem "
_WORKER_LOGGER = "MODEL_LOG"
_RETRY = re.compile(r"Retry worker: (\S+) in (\d+) seconds")
_TRACEBACK = "Traceback (most recent call last):"
_CHAIN = ("The above exception was", "During handling of the above exception")
_COMPLETE_S = 0.5
# What comes of a form or a path that is none, or of a client that goes away, is logged as an error here.
_REQUEST_LOGGER = "HttpRequestHandler"
# What follows from a worker's death, of which another line tells.
_FOLLOWS = ("Load model failed: ", "Auto recovery failed again")
_JVM = re.compile(r'Exception in thread "|java\.lang\.OutOfMemoryError|# A fatal error has been detected')


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class ServerEvent:
    """Something that an operator should know.

    Attributes:
        event: What kind it is, such as `worker-died`.
        message: What happened, in one line.
        level: `WARN` or `ERROR`.
        time: When, in UTC.
        details: What else is known: `worker`, `requests`, `repeated`, `traceback`.
    """

    event: str
    message: str
    level: str = "ERROR"
    time: str = field(default_factory=_now)
    details: dict[str, Any] = field(default_factory=dict)

    def json(self) -> str:
        """As a JSON object in one line."""
        first = {"time": self.time, "level": self.level, "event": self.event, "message": self.message}
        return json.dumps({**first, **self.details}, ensure_ascii=False)

    def text(self) -> str:
        """As a line to read, without a traceback."""
        told = "".join(f" {name}={value}" for name, value in self.details.items() if name != "traceback")
        return f"{self.time} {self.level} {self.event}: {' '.join(self.message.split())}{told}"


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
        """Read a line; what is not the frontend's own form, such as the Java machine's words, is all message."""
        try:
            fields = json.loads(line)
            return cls(**{**fields, "exception": fields["exception"].strip()})
        except (ValueError, TypeError, LookupError):
            return cls("", "", "", "", line)

    @property
    def text(self) -> str:
        """The lines that it would be in a log for people."""
        if not self.logger:
            return self.message
        who = "worker" if self.logger == _WORKER_LOGGER else self.logger
        return "\n".join(filter(None, [f"{self.time} {self.level:5} {who} {self.message}", self.exception]))


class LogMonitor:
    """Finds the problems in a server's log.

    Args:
        on_problem: Called with each, by the thread that calls `read` or `flush`.
        clock: Seconds that only grow.
    """

    def __init__(self, on_problem: Callable[[ServerEvent], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.started = False
        self._on_problem = on_problem
        self._clock = clock
        self._lock = threading.Lock()
        self._tracebacks: dict[str, tuple[float, list[str]]] = {}
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def read(self, record: LogRecord) -> None:
        """Take the next record."""
        with self._lock:
            if record.logger == _WORKER_LOGGER:
                self._read_worker(record)
            elif retry := _RETRY.match(record.message):
                worker, wait_s = retry.groups()
                if self.started:  # until then the reason is told, and nothing is started again
                    message = f"worker {worker} died and is started again in {wait_s} s"
                    self._tell(ServerEvent("worker-died", message, details={"worker": worker}))
            elif record.message.startswith(_FOLLOWS):
                pass
            elif record.level in {"WARN", "ERROR", "FATAL"} and not _of_client(record):
                first = record.exception.partition("\n")[0]
                message = ": ".join(filter(None, [record.message.strip(), first]))
                details = {"logger": record.logger, **({"traceback": record.exception} if record.exception else {})}
                self._tell(ServerEvent("torchserve", message, record.level, record.time, details))
            elif not record.logger and _JVM.match(record.message):
                self._tell(ServerEvent("java", record.message))

    def flush(self, at_once: bool = False) -> None:
        """Tell of tracebacks to which nothing was added for a while; to be called every second or oftener."""
        with self._lock:
            for thread, (last, _) in list(self._tracebacks.items()):
                if at_once or self._clock() - last > _COMPLETE_S:
                    self._end_traceback(thread)

    def _read_worker(self, record: LogRecord) -> None:
        message, thread = record.message, record.thread
        if message.startswith(_MARK):
            told = json.loads(message.removeprefix(_MARK))
            details = {"worker": thread.removesuffix("-stdout"), **told["details"]}
            self._tell(ServerEvent(told["event"], told["message"], "ERROR", record.time, details))
            return
        lines = self._tracebacks[thread][1] if thread in self._tracebacks else []
        if message == _TRACEBACK or (lines and _continues(lines, message)):
            self._tracebacks[thread] = (self._clock(), [*lines, message])
        elif lines:
            self._end_traceback(thread)

    def _end_traceback(self, thread: str) -> None:
        _, lines = self._tracebacks.pop(thread)
        message = next((line for line in reversed(lines) if line and not line.startswith(" ")), lines[-1])
        details = {"worker": re.sub("-std(out|err)$", "", thread), "traceback": "\n".join(lines)}
        self._tell(ServerEvent("worker-failed", message, details=details))

    def _tell(self, problem: ServerEvent) -> None:
        key, now = (problem.event, problem.message), self._clock()
        last, repeated = self._seen.get(key, (-REPEAT_S, 0))
        if now - last < REPEAT_S:
            self._seen[key] = (last, repeated + 1)
            return
        # Messages may hold numbers that never come again.
        self._seen = {other: seen for other, seen in self._seen.items() if now - seen[0] < REPEAT_S}
        self._seen[key] = (now, 0)
        more = {"repeated": repeated} if repeated else {}
        self._on_problem(
            ServerEvent(problem.event, problem.message, problem.level, problem.time, {**problem.details, **more})
        )


def report_event(event: str, message: str, requests: int, traceback: str) -> None:
    """In a worker: tell the server's operator of a problem, in one line.

    Args:
        event: What kind it is.
        message: What happened.
        requests: How many requests it has cost.
        traceback: Where it happened.
    """
    told = {"event": event, "message": message, "details": {"requests": requests, "traceback": traceback}}
    logging.getLogger(__name__).error("%s%s", _MARK, json.dumps(told))


def _of_client(record: LogRecord) -> bool:
    """Tell whether only a request or its connection was broken; what befell the Java machine meanwhile is not that."""
    raised = record.exception.partition("\n")[0].partition(":")[0]
    return record.logger == _REQUEST_LOGGER and bool(raised) and not raised.endswith("Error")


def _continues(lines: list[str], line: str) -> bool:
    """Tell whether `line` belongs to the traceback of `lines`: a step, what was raised, or another raised by that."""
    if line == "" or line.startswith((" ", *_CHAIN)):
        return True
    return lines[-1].startswith(" ") or lines[-1] == _TRACEBACK
