"""Measurements of servers, and their tables."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

CLIENTS = (1, 8, 64)
CAPACITY_FRACTIONS = (0.5, 0.8)
"""Rates of the open loop, as fractions of the capacity of a server."""


@dataclass
class Run:
    """One load on one server.

    Attributes:
        load: Name: number of clients of a closed loop, or a percentage of the capacity.
        offered_per_s: Open loop: requests sent per second on average.
        per_s: Good answers per second.
        p50_ms: Median latency of the good answers, from the time when a request was sent or due.
        p99_ms: 99th percentile of these latencies.
        percentiles_ms: Percentiles 0 to 100 of these latencies.
        count: Number of good answers in the measured time.
        errors: Number of errors by kind.
        server_cpu_ms: Processor time of the server per answer.
        generator_cpu_ms: Processor time of the load generator per answer.
        late_ms: Open loop: delay of the requests after they were due (99th percentile); part of the latencies.
        connections: Maximum number of open connections.
        reopened: Number of connections that the server closed.
    """

    load: str
    offered_per_s: float
    per_s: float
    p50_ms: float
    p99_ms: float
    percentiles_ms: list[float]
    count: int
    errors: dict[str, int]
    server_cpu_ms: float
    generator_cpu_ms: float
    late_ms: float
    connections: int
    reopened: int


@dataclass
class Agreement:
    """Agreement of the answers with PyTorch's in fp32; equal answers count once.

    Attributes:
        compared: Number of answers.
        same: Number of answers with the same label.
        max_difference: Largest difference of a probability; `None` if the answers have only labels.
    """

    compared: int = 0
    same: int = 0
    max_difference: float | None = None


@dataclass
class Visit:
    """Measurements of a server that was started once.

    Attributes:
        start_s: Seconds until the first answer.
        memory_bytes: Memory of its processes after all loads.
        processes: Number of its processes.
        runs: Measurements by load.
        agreement: Agreement of all its answers.
        failure: Reason why it could not be measured, if so.
    """

    start_s: float = 0.0
    memory_bytes: int = 0
    processes: int = 0
    runs: list[Run] = field(default_factory=list)
    agreement: Agreement = field(default_factory=Agreement)
    failure: str = ""


@dataclass
class Limit:
    """A runtime without a server.

    Attributes:
        single_per_s: Texts per second, one at a time, by round.
        many_per_s: Texts per second, all at once, sorted by length.
        p50_ms: Median latency of one at a time.
        p99_ms: 99th percentile of these latencies.
        memory_bytes: Memory of its process.
    """

    single_per_s: list[float] = field(default_factory=list)
    many_per_s: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    memory_bytes: list[float] = field(default_factory=list)


@dataclass
class Measured:
    """A server over all rounds.

    Attributes:
        key: Key of the server.
        name: Name of the server.
        default: Whether it is a peer at its defaults.
        runtime: Runtime of newsbert; empty for a peer.
        visits: Measurements by round.
    """

    key: str
    name: str
    default: bool
    runtime: str
    visits: list[Visit] = field(default_factory=list)

    def values(self, load: str, value: Callable[[Run], float]) -> list[float]:
        """Return the values of a load by round."""
        return [value(run) for visit in self.visits for run in visit.runs if run.load == load]

    def median(self, load: str, value: Callable[[Run], float]) -> float:
        """Return the median over the rounds; NaN if there are no values."""
        return median(self.values(load, value))

    def errors(self) -> dict[str, int]:
        """Return the number of errors of all loads and rounds by kind."""
        total: dict[str, int] = {}
        for visit in self.visits:
            for run in visit.runs:
                for kind, count in run.errors.items():
                    total[kind] = total.get(kind, 0) + count
        return total


def per_s(run: Run) -> float:
    """Return good answers per second."""
    return run.per_s


def p50_ms(run: Run) -> float:
    """Return the median latency."""
    return run.p50_ms


def p99_ms(run: Run) -> float:
    """Return the 99th percentile of the latencies."""
    return run.p99_ms


def median(values: Sequence[float]) -> float:
    """Return the median without NaN; NaN if there are no values."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


def open_load(fraction: float) -> str:
    """Return the name of the load with a fraction of the capacity."""
    return f"{fraction:.0%}"


def throughput_table(servers: Iterable[Measured]) -> str:
    """Return a table of answers per second in the closed loops, and of their cost."""
    rows = []
    for server in servers:
        visits = [visit for visit in server.visits if not visit.failure]
        if not visits:
            rows.append([server.key, server.name, *["–"] * 7, "did not start", "–"])
            continue
        compared = sum(visit.agreement.compared for visit in visits)
        same = sum(visit.agreement.same for visit in visits)
        agreements = [visit.agreement.max_difference for visit in visits]
        differences = [difference for difference in agreements if difference is not None]
        errors = ", ".join(f"{count} {kind}" for kind, count in sorted(server.errors().items()))
        rows.append(
            [
                server.key,
                server.name,
                *(_spread(server.values(str(clients), per_s), ".0f") for clients in CLIENTS),
                _number(server.median(str(CLIENTS[-1]), lambda run: run.server_cpu_ms), ".1f"),
                _number(server.median(str(CLIENTS[-1]), lambda run: run.generator_cpu_ms), ".2f"),
                f"{median([visit.memory_bytes for visit in visits]) / 1e6:.0f}",
                errors or "none",
                f"{same / compared:.2%}" if compared else "–",
                f"{max(differences):.1g}" if differences else "label only",
            ]
        )
    head = [
        "", "server", *(f"{clients} client{'s' if clients > 1 else ''}, texts/s" for clients in CLIENTS),
        "CPU ms/text", "generator's", "MB", "errors", "same label", "largest difference",
    ]  # fmt: skip
    return _table(head, rows)


def closed_table(servers: Iterable[Measured]) -> str:
    """Return a table of the latencies in the closed loops."""
    loads = [str(clients) for clients in CLIENTS]
    rows = []
    for server in servers:
        if any(visit.runs for visit in server.visits):
            cells = [_spread(server.values(load, value), "ms") for load in loads for value in (p50_ms, p99_ms)]
            rows.append([server.key, server.name, *cells])
    head = ["", "server"]
    for clients in CLIENTS:
        head += [f"{clients} client{'s' if clients > 1 else ''}: p50 ms", "p99 ms"]
    return _table(head, rows)


def open_table(servers: Iterable[Measured]) -> str:
    """Return a table of the latencies with requests at random times."""
    rows = []
    for server in servers:
        if not any(visit.runs for visit in server.visits):
            continue
        row = [server.key, server.name]
        for load in map(open_load, CAPACITY_FRACTIONS):
            row.append(_number(server.median(load, lambda run: run.offered_per_s), ".0f"))
            row += [_spread(server.values(load, value), "ms") for value in (p50_ms, p99_ms)]
            row.append(_number(median(server.values(load, lambda run: run.p99_ms / run.p50_ms)), ".1f"))
        rows.append(row)
    head = ["", "server"]
    for fraction in CAPACITY_FRACTIONS:
        head += [f"{open_load(fraction)} of its capacity: requests/s", "p50 ms", "p99 ms", "p99 to p50"]
    return _table(head, rows)


def limit_table(limits: dict[str, Limit]) -> str:
    """Return a table of the runtimes without a server."""
    rows = [
        [
            "g",
            name,
            _spread(limit.single_per_s, ".0f"),
            f"{median(limit.p50_ms):.1f}",
            f"{median(limit.p99_ms):.1f}",
            _spread(limit.many_per_s, ".0f"),
            f"{median(limit.memory_bytes) / 1e6:.0f}",
        ]
        for name, limit in limits.items()
    ]
    head = [
        "",
        "runtime without a server",
        "one at a time, texts/s",
        "p50 ms",
        "p99 ms",
        "all, sorted by length, texts/s",
        "MB",
    ]
    return _table(head, rows)


def target_table(servers: Sequence[Measured], limits: dict[str, Limit]) -> str:
    """Return a table that compares newsbert with the best peer at its defaults and with the limit; may be empty."""
    max_clients, last = str(CLIENTS[-1]), open_load(CAPACITY_FRACTIONS[-1])
    peers = [server for server in servers if server.default and not math.isnan(server.median("1", p50_ms))]
    rows: list[list[str]] = []

    def add(key: str, name: str, target: str, value: float, other: float) -> None:
        if other and not math.isnan(value / other):
            rows.append([key, name, target, f"{value / other:.2f}"])

    for ours in (server for server in servers if server.runtime):
        rate = ours.median(max_clients, per_s)
        if peers:
            best = max(peers, key=lambda peer: peer.median(max_clients, per_s))
            name = f"texts/s at {max_clients} clients, to {best.name} ({best.key})"
            add(ours.key, name, "at least 4", rate, best.median(max_clients, per_s))
        if ours.runtime in limits:
            add(
                ours.key,
                "the same, to its runtime without a server (g)",
                "at least 0.7",
                rate,
                median(limits[ours.runtime].many_per_s),
            )
        if peers:
            best = min(peers, key=lambda peer: peer.median("1", p50_ms))
            to = f"to {best.name} ({best.key})"
            add(ours.key, f"p50 at 1 client, {to}", "at most 0.5", ours.median("1", p50_ms), best.median("1", p50_ms))
            add(ours.key, f"p99 at 1 client, {to}", "at most 1", ours.median("1", p99_ms), best.median("1", p99_ms))
        add(
            ours.key,
            f"p99 to p50 at {last} of capacity",
            "below 3",
            ours.median(last, p99_ms),
            ours.median(last, p50_ms),
        )
    return _table(["", "ratio", "target", "measured"], rows) if rows else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def _number(value: float, form: str) -> str:
    """Format a number; the format "ms" has one decimal for short times and none for long times."""
    if math.isnan(value):
        return "–"
    return f"{value:{form if form != 'ms' else '.1f' if value < 99.5 else '.0f'}}"


def _spread(values: Sequence[float], form: str) -> str:
    """Format the median, and the range if there are several values."""
    known = [value for value in values if not math.isnan(value)]
    middle = _number(median(known), form)
    return middle if len(known) < 2 else f"{middle} ({_number(min(known), form)}–{_number(max(known), form)})"
