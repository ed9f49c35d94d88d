"""Problems of a server that its operator should know."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

REPEAT_S = 10.0
"""Time in which repetitions of a problem are only counted; its next event reports their number."""


def _format_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class ServerEvent:
    """A problem that an operator should know.

    Attributes:
        event: Kind of the problem, such as `worker-died`.
        message: Description, in one line.
        level: `WARN` or `ERROR`.
        time: Time of the problem, in UTC.
        details: Further facts: `worker`, `requests`, `repeated`, `traceback`.
    """

    event: str
    message: str
    level: str = "ERROR"
    time: str = field(default_factory=_format_now)
    details: dict[str, Any] = field(default_factory=dict)

    def json(self) -> str:
        """Return the event as a JSON object in one line."""
        first = {"time": self.time, "level": self.level, "event": self.event, "message": self.message}
        return json.dumps({**first, **self.details}, ensure_ascii=False)

    def text(self) -> str:
        """Return the event as a readable line, without a traceback."""
        details = "".join(f" {name}={value}" for name, value in self.details.items() if name != "traceback")
        return f"{self.time} {self.level} {self.event}: {' '.join(self.message.split())}{details}"


class RepeatFilter:
    """A callback for problems that passes a repeated one on only once in a while, with the number of repetitions.

    Args:
        on_problem: Called with every problem that is passed on.
        clock: Monotonic clock, in seconds.
    """

    def __init__(self, on_problem: Callable[[ServerEvent], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._on_problem = on_problem
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def __call__(self, problem: ServerEvent) -> None:
        """Pass a problem on, or count it. Threads may call this at the same time."""
        with self._lock:
            self._pass_on(problem)

    def _pass_on(self, problem: ServerEvent) -> None:
        key, now = (problem.event, problem.message), self._clock()
        last, repeated = self._seen.get(key, (-REPEAT_S, 0))
        if now - last < REPEAT_S:
            self._seen[key] = (last, repeated + 1)
            return
        # Messages may have unique numbers, so old entries must not pile up.
        self._seen = {other: seen for other, seen in self._seen.items() if now - seen[0] < REPEAT_S}
        self._seen[key] = (now, 0)
        repetitions = {"repeated": repeated} if repeated else {}
        self._on_problem(
            ServerEvent(problem.event, problem.message, problem.level, problem.time, {**problem.details, **repetitions})
        )
