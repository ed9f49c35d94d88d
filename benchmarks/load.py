"""The load generator: a process of its own that asks an HTTP server and notes when it answers.

It shares the machine's cores with the server that it measures, and nothing of it is subtracted; so it is one thread on
epoll, the requests are bytes beforehand, connections stay open, and an answer is looked at only as far as to find its
end. Closed loop: every client waits for its answer and asks again at once. Open loop: requests are sent at times drawn
beforehand, whether others are answered or not, and a latency counts from the time that a request was meant to be sent:
a server (or generator) that stalls is charged for all who would have asked meanwhile.

    python benchmarks/load.py < plan.json > result.json
"""

import gc
import json
import random
import re
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

_RECEIVE_BYTES = 65536
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


@dataclass(frozen=True)
class Plan:
    """What is to be asked, and how.

    Attributes:
        port: Of the server, on loopback.
        requests: Whole HTTP requests, in Latin-1; asked in this order, from the first again after the last.
        seconds: Length of the measured time.
        clients: Closed loop: how many ask.
        rate: Open loop: requests a second on average; 0 for a closed loop.
        warmup_s: Seconds of the same load before.
        least: Closed loop: go on until so many answers are measured, for at most three times `seconds`.
        timeout_s: How long an answer is waited for at the end.
        seed: Of the arrival times.
        connections: Open loop: at most. Who comes when all are busy waits here, and his latency counts on.
    """

    port: int
    requests: list[str]
    seconds: float
    clients: int = 1
    rate: float = 0.0
    warmup_s: float = 0.0
    least: int = 0
    timeout_s: float = 60.0
    seed: int = 1
    connections: int = 900


@dataclass
class Result:
    """What came of a plan.

    Attributes:
        seconds: Length of the measured time.
        latencies_s: Of the good answers in it.
        errors: Of the measured time, by kind.
        bodies: Different good answers by request.
        answered: Answers of any kind, those before and after the measured time included.
        cpu_s: Processor time of this process for all of them.
        late_s: Open loop: how much later than meant the requests were sent (99th percentile).
        connections: How many were open at once at most.
        reopened: Connections that the server had closed.
    """

    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    bodies: dict[int, list[str]] = field(default_factory=dict)
    answered: int = 0
    cpu_s: float = 0.0
    late_s: float = 0.0
    connections: int = 0
    reopened: int = 0

    def error(self, kind: str) -> None:
        """Count an error."""
        self.errors[kind] = self.errors.get(kind, 0) + 1


class ConnectionLostError(Exception):
    """The server closed the connection before it had answered."""


class Connection:
    """A connection that has one request under way at most.

    Attributes:
        index: The request under way.
        asked_s: When it was sent, or meant to be sent; 0 if none is under way.
        fresh: Whether nothing has been answered on it yet.
    """

    __slots__ = ("_data", "_port", "asked_s", "fresh", "index", "socket")

    def __init__(self, port: int) -> None:
        self._port = port
        self.open()

    def open(self) -> None:
        """Connect (again)."""
        self.socket = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.index = 0
        self.asked_s = 0.0
        self.fresh = True
        self._data = b""

    def ask(self, index: int, request: bytes, asked_s: float) -> None:
        """Send a request.

        Raises:
            ConnectionLostError: If the server has gone.
        """
        self.index, self.asked_s, self._data = index, asked_s, b""
        try:
            sent = self.socket.send(request)
        except OSError as error:
            raise ConnectionLostError from error
        # A news item is far smaller than the buffer of a socket whose last request was read.
        assert sent == len(request), f"{sent} of {len(request)} bytes were taken"

    def answer(self) -> tuple[int, bytes, bool] | None:
        """Read what has arrived: status, body, and whether the server will close; nothing if there is more to come.

        Raises:
            ConnectionLostError: If it ends before the answer does, or while there is nothing to answer.
        """
        try:
            received = self.socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            raise ConnectionLostError from error
        if not received:
            raise ConnectionLostError
        data = self._data = self._data + received if self._data else received
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            return None
        head = data[:end]
        length = _LENGTH.search(head)
        if length:
            if len(data) < end + int(length[1]):
                return None
            body = data[end:]
        elif _CHUNKED.search(head):
            if not data.endswith(b"0\r\n\r\n"):
                return None
            body = b"".join(_chunks(data[end:]))
        else:
            body = b""
        self.fresh = False
        return int(data[9:12]), body, _CLOSE.search(head) is not None


def _chunks(data: bytes) -> Iterator[bytes]:
    while data:
        size, _, rest = data.partition(b"\r\n")
        length = int(size, 16)
        yield rest[:length]
        data = rest[length + 2 :] if length else b""


class Load:
    """What both loops share: the connections, and what is noted of an answer."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.requests = [each.encode("latin-1") for each in plan.requests]
        self.result = Result()
        self.epoll = select.epoll()
        self.by_descriptor: dict[int, Connection] = {}

    def connect(self) -> Connection:
        """Open one more connection."""
        connection = Connection(self.plan.port)
        self._watch(connection)
        self.result.connections = max(self.result.connections, len(self.by_descriptor))
        return connection

    def reopen(self, connection: Connection) -> None:
        """Replace a connection that has ended by a new one."""
        self.drop(connection)
        connection.open()
        self._watch(connection)
        self.result.reopened += 1

    def drop(self, connection: Connection) -> None:
        """Close a connection."""
        del self.by_descriptor[connection.socket.fileno()]
        connection.socket.close()

    def _watch(self, connection: Connection) -> None:
        self.by_descriptor[connection.socket.fileno()] = connection
        self.epoll.register(connection.socket.fileno(), select.EPOLLIN)

    def ask(self, connection: Connection, index: int, asked_s: float) -> None:
        """Send a request; once more on a new connection if the server has closed this one meanwhile."""
        try:
            connection.ask(index, self.requests[index], asked_s)
        except ConnectionLostError:
            self.reopen(connection)
            connection.ask(index, self.requests[index], asked_s)

    def receive(self, connection: Connection) -> tuple[int, bytes] | None:
        """Read a connection that has something to read: status and body of an answer, status 0 if it broke off.

        A server may close a connection that it takes for idle just when a request arrives. What any client does then is
        done here: the request is sent once more, and the time that this takes counts.
        """
        try:
            answer = connection.answer()
        except ConnectionLostError:
            index, asked_s, fresh = connection.index, connection.asked_s, connection.fresh
            if not asked_s:
                self.drop(connection)
                return None
            self.reopen(connection)
            if fresh:
                return 0, b""
            connection.ask(index, self.requests[index], asked_s)
            connection.fresh = True
            return None
        if answer is None:
            return None
        status, body, closes = answer
        if closes:
            self.reopen(connection)
        return status, body

    def note(self, index: int, latency_s: float, status: int, body: bytes) -> None:
        """Note an answer of the measured time."""
        if status != 200:
            self.result.error(f"HTTP {status}" if status else "connection closed")
            return
        self.result.latencies_s.append(latency_s)
        seen = self.result.bodies.setdefault(index, [])
        text = body.decode("latin-1")
        if text not in seen:
            seen.append(text)


def closed(plan: Plan) -> Result:
    """Let clients ask, each again as soon as it is answered.

    An answer counts if it arrives in the measured time.
    """
    load, now = Load(plan), time.perf_counter
    result = load.result
    clients = [load.connect() for _ in range(plan.clients)]
    cpu_before = time.process_time()
    start = now() + plan.warmup_s
    end, last_end = start + plan.seconds, start + 3 * plan.seconds
    turn = 0
    for connection in clients:
        load.ask(connection, turn % len(load.requests), now())
        turn += 1
    under_way = len(clients)
    give_up = last_end + plan.timeout_s
    while under_way and now() < give_up:
        for descriptor, _ in load.epoll.poll(0.5):
            connection = load.by_descriptor[descriptor]
            index, asked_s = connection.index, connection.asked_s
            answer = load.receive(connection)
            if answer is None:
                continue
            at = now()
            result.answered += 1
            while at >= end and len(result.latencies_s) < plan.least and end < last_end:
                end = min(end + plan.seconds / 4, last_end)
            if start <= at < end:
                load.note(index, at - asked_s, *answer)
            if at < end:
                load.ask(connection, turn % len(load.requests), at)
                turn += 1
            else:
                connection.asked_s = 0.0
                under_way -= 1
    for connection in clients:
        if connection.asked_s:
            result.error(f"no answer in {plan.timeout_s:g} s")
    result.seconds = end - start
    result.cpu_s = time.process_time() - cpu_before
    return result


def arrivals(rate: float, seconds: float, draw: random.Random) -> list[float]:
    """Times of a Poisson process that has as many arrivals as it has on average: seconds from the start.

    Given their number, its arrivals are independent and uniform. Were the number left to chance too, a short run meant
    for 80% of a capacity might get 90%.
    """
    return sorted(draw.uniform(0, seconds) for _ in range(max(1, round(rate * seconds))))


def opened(plan: Plan) -> Result:
    """Ask at the times drawn beforehand.

    A request counts if it was meant to be sent in the measured time, whenever it is answered.
    """
    load, now = Load(plan), time.perf_counter
    result = load.result
    idle = [load.connect() for _ in range(min(8, plan.connections))]
    draw = random.Random(plan.seed)
    times = arrivals(plan.rate, plan.warmup_s, draw) if plan.warmup_s else []
    times += [plan.warmup_s + each for each in arrivals(plan.rate, plan.seconds, draw)]
    cpu_before = time.process_time()
    begin = now()
    start = begin + plan.warmup_s
    waiting: deque[tuple[int, float]] = deque()
    late_s: list[float] = []
    turn, under_way = 0, 0
    give_up = start + plan.seconds + plan.timeout_s
    while turn < len(times) or under_way or waiting:
        at = now()
        if at > give_up:
            break
        while turn < len(times) and begin + times[turn] <= at:
            waiting.append((turn % len(load.requests), begin + times[turn]))
            turn += 1
        while waiting and (idle or len(load.by_descriptor) < plan.connections):
            index, meant_s = waiting.popleft()
            connection = idle.pop() if idle else load.connect()
            late_s.append(now() - meant_s)
            load.ask(connection, index, meant_s)
            under_way += 1
        # epoll waits for whole milliseconds only; `select` on epoll's own descriptor waits for as long as it is told.
        wait_s = min(max(begin + times[turn] - now(), 0.0), 0.5) if turn < len(times) else 0.5
        if not select.select([load.epoll.fileno()], [], [], wait_s)[0]:
            continue
        for descriptor, _ in load.epoll.poll(0):
            connection = load.by_descriptor[descriptor]
            index, meant_s = connection.index, connection.asked_s
            answer = load.receive(connection)
            if descriptor not in load.by_descriptor and connection in idle:
                idle.remove(connection)
            if answer is None:
                continue
            at = now()
            under_way -= 1
            result.answered += 1
            connection.asked_s = 0.0
            idle.append(connection)
            if meant_s >= start:
                load.note(index, at - meant_s, *answer)
    for _ in range(under_way + len(waiting) + len(times) - turn):
        result.error(f"no answer in {plan.timeout_s:g} s")
    result.late_s = sorted(late_s)[int(0.99 * len(late_s))] if late_s else 0.0
    result.seconds = plan.seconds
    result.cpu_s = time.process_time() - cpu_before
    return result


def main() -> None:
    plan = Plan(**json.load(sys.stdin))
    gc.collect()
    gc.disable()  # it makes no cycles that matter in a minute, and a collection is a pause
    result = opened(plan) if plan.rate else closed(plan)
    document: dict[str, Any] = asdict(result)
    json.dump(document, sys.stdout)


if __name__ == "__main__":
    main()
