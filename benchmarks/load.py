"""Load generator: a process that sends requests to an HTTP server and measures when it answers.

It shares the cores with the server that it measures, and its cost is not subtracted. So it is one thread on epoll, the
requests are bytes, connections stay open, and it parses an answer only to find its end.

Closed loop: every client waits for its answer, and sends the next request at once. Open loop: requests are due at
random times, whether others are answered or not. A latency counts from the time that a request was due, so that a
server (or generator) that stalls also delays those that arrive meanwhile.

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
    """Requests, and how to send them.

    Attributes:
        port: Port of the server, on loopback.
        requests: Whole HTTP requests, in Latin-1; sent in this order, again and again.
        seconds: Length of the measured time.
        clients: Closed loop: number of clients.
        rate: Open loop: requests per second on average; 0 for a closed loop.
        warmup_s: Seconds of the same load before.
        min_answers: Closed loop: minimum number of measured answers; `seconds` grow to three times as many for it.
        timeout_s: Maximum time to wait for answers at the end.
        seed: Seed of the arrival times.
        connections: Open loop: maximum number of connections. If all are busy, requests wait, and their latencies grow.
    """

    port: int
    requests: list[str]
    seconds: float
    clients: int = 1
    rate: float = 0.0
    warmup_s: float = 0.0
    min_answers: int = 0
    timeout_s: float = 60.0
    seed: int = 1
    connections: int = 900


@dataclass
class Result:
    """Results of a plan.

    Attributes:
        seconds: Length of the measured time.
        latencies_s: Latencies of the good answers in that time.
        errors: Number of errors in that time, by kind.
        bodies: Different good answers by request.
        answered: Number of all answers, also before and after the measured time.
        cpu_s: Processor time of this process for all answers.
        late_s: Open loop: delay of the requests after they were due (99th percentile).
        connections: Maximum number of open connections.
        reopened: Number of connections that the server closed.
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
    """A connection that waits for one answer at most.

    Attributes:
        index: The request that waits for its answer.
        start_s: Time when it was sent, or due; 0 if none waits.
        fresh: Whether there was no answer on it yet.
    """

    __slots__ = ("_data", "_port", "fresh", "index", "socket", "start_s")

    def __init__(self, port: int) -> None:
        self._port = port
        self.open()

    def open(self) -> None:
        """Connect."""
        self.socket = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.index = 0
        self.start_s = 0.0
        self.fresh = True
        self._data = b""

    def send(self, index: int, request: bytes, start_s: float) -> None:
        """Send a request.

        Raises:
            ConnectionLostError: If the server has closed the connection.
        """
        self.index, self.start_s, self._data = index, start_s, b""
        try:
            sent = self.socket.send(request)
        except OSError as error:
            raise ConnectionLostError from error
        # A news item is far smaller than the buffer of a socket whose last request was read.
        assert sent == len(request), f"only {sent} of {len(request)} bytes were sent"

    def answer(self) -> tuple[int, bytes, bool] | None:
        """Return status, body, and whether the server will close; `None` if the answer is not complete.

        Raises:
            ConnectionLostError: If the connection ends before the answer.
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
    """Connections and results of both loops."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.requests = [request.encode("latin-1") for request in plan.requests]
        self.result = Result()
        self.epoll = select.epoll()
        self.by_descriptor: dict[int, Connection] = {}

    def connect(self) -> Connection:
        """Open another connection."""
        connection = Connection(self.plan.port)
        self._watch(connection)
        self.result.connections = max(self.result.connections, len(self.by_descriptor))
        return connection

    def reopen(self, connection: Connection) -> None:
        """Replace a closed connection by a new one."""
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

    def send(self, connection: Connection, index: int, start_s: float) -> None:
        """Send a request; if the server has closed the connection, send it on a new one."""
        try:
            connection.send(index, self.requests[index], start_s)
        except ConnectionLostError:
            self.reopen(connection)
            connection.send(index, self.requests[index], start_s)

    def receive(self, connection: Connection) -> tuple[int, bytes] | None:
        """Read from a connection; return status and body of an answer, with status 0 if the connection was lost.

        A server may close an idle connection just when a request arrives. As any client does, this sends the request
        again. The latency includes that time.
        """
        try:
            answer = connection.answer()
        except ConnectionLostError:
            index, start_s, fresh = connection.index, connection.start_s, connection.fresh
            if not start_s:
                self.drop(connection)
                return None
            self.reopen(connection)
            if fresh:
                return 0, b""
            connection.send(index, self.requests[index], start_s)
            connection.fresh = True
            return None
        if answer is None:
            return None
        status, body, closes = answer
        if closes:
            self.reopen(connection)
        return status, body

    def record(self, index: int, latency_s: float, status: int, body: bytes) -> None:
        """Record an answer of the measured time."""
        if status != 200:
            self.result.error(f"HTTP {status}" if status else "connection closed")
            return
        self.result.latencies_s.append(latency_s)
        seen = self.result.bodies.setdefault(index, [])
        text = body.decode("latin-1")
        if text not in seen:
            seen.append(text)


def run_closed_loop(plan: Plan) -> Result:
    """Run clients that send the next request as soon as they have an answer.

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
        load.send(connection, turn % len(load.requests), now())
        turn += 1
    num_waiting = len(clients)
    give_up = last_end + plan.timeout_s
    while num_waiting and now() < give_up:
        for descriptor, _ in load.epoll.poll(0.5):
            connection = load.by_descriptor[descriptor]
            index, start_s = connection.index, connection.start_s
            answer = load.receive(connection)
            if answer is None:
                continue
            at = now()
            result.answered += 1
            while at >= end and len(result.latencies_s) < plan.min_answers and end < last_end:
                end = min(end + plan.seconds / 4, last_end)
            if start <= at < end:
                load.record(index, at - start_s, *answer)
            if at < end:
                load.send(connection, turn % len(load.requests), at)
                turn += 1
            else:
                connection.start_s = 0.0
                num_waiting -= 1
    for connection in clients:
        if connection.start_s:
            result.error(f"no answer in {plan.timeout_s:g} s")
    result.seconds = end - start
    result.cpu_s = time.process_time() - cpu_before
    return result


def arrivals(rate: float, seconds: float, rng: random.Random) -> list[float]:
    """Return the times of a Poisson process with exactly the average number of arrivals, in seconds from the start.

    With a fixed number, the arrivals are independent and uniform. With a random number, a short run at 80% of a
    capacity might get 90%.
    """
    return sorted(rng.uniform(0, seconds) for _ in range(max(1, round(rate * seconds))))


def run_open_loop(plan: Plan) -> Result:
    """Send requests at random times.

    A request counts if it was due in the measured time, whenever it is answered.
    """
    load, now = Load(plan), time.perf_counter
    result = load.result
    idle = [load.connect() for _ in range(min(8, plan.connections))]
    rng = random.Random(plan.seed)
    times = arrivals(plan.rate, plan.warmup_s, rng) if plan.warmup_s else []
    times += [plan.warmup_s + arrival for arrival in arrivals(plan.rate, plan.seconds, rng)]
    cpu_before = time.process_time()
    begin = now()
    start = begin + plan.warmup_s
    waiting: deque[tuple[int, float]] = deque()
    late_s: list[float] = []
    turn, num_waiting = 0, 0
    give_up = start + plan.seconds + plan.timeout_s
    while turn < len(times) or num_waiting or waiting:
        at = now()
        if at > give_up:
            break
        while turn < len(times) and begin + times[turn] <= at:
            waiting.append((turn % len(load.requests), begin + times[turn]))
            turn += 1
        while waiting and (idle or len(load.by_descriptor) < plan.connections):
            index, due_s = waiting.popleft()
            connection = idle.pop() if idle else load.connect()
            late_s.append(now() - due_s)
            load.send(connection, index, due_s)
            num_waiting += 1
        # epoll waits for whole milliseconds only; `select` on the descriptor of epoll waits for less.
        wait_s = min(max(begin + times[turn] - now(), 0.0), 0.5) if turn < len(times) else 0.5
        if not select.select([load.epoll.fileno()], [], [], wait_s)[0]:
            continue
        for descriptor, _ in load.epoll.poll(0):
            connection = load.by_descriptor[descriptor]
            index, due_s = connection.index, connection.start_s
            answer = load.receive(connection)
            if descriptor not in load.by_descriptor and connection in idle:
                idle.remove(connection)
            if answer is None:
                continue
            at = now()
            num_waiting -= 1
            result.answered += 1
            connection.start_s = 0.0
            idle.append(connection)
            if due_s >= start:
                load.record(index, at - due_s, *answer)
    for _ in range(num_waiting + len(waiting) + len(times) - turn):
        result.error(f"no answer in {plan.timeout_s:g} s")
    result.late_s = sorted(late_s)[int(0.99 * len(late_s))] if late_s else 0.0
    result.seconds = plan.seconds
    result.cpu_s = time.process_time() - cpu_before
    return result


def main() -> None:
    plan = Plan(**json.load(sys.stdin))
    gc.collect()
    gc.disable()  # a collection is a pause, and there are few cycles to collect
    result = run_open_loop(plan) if plan.rate else run_closed_loop(plan)
    document: dict[str, Any] = asdict(result)
    json.dump(document, sys.stdout)


if __name__ == "__main__":
    main()
