"""What was measured, and the tables of it."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

CLIENTS = (1, 8, 64)
SHARES = (0.5, 0.8)
"""Of a server's capacity, in the open loop."""


@dataclass
class Run:
    """One load on one server.

    Attributes:
        load: Which: clients of a closed loop, or a share of the capacity.
        offered_per_s: Open loop: requests a second that were sent on average.
        per_s: Good answers a second.
        p50_ms: Of the good answers' latencies, from when a request was (or was meant to be) sent.
        p99_ms: As `p50_ms`.
        percentiles_ms: All of them, 0 to 100.
        count: Good answers in the measured time.
        errors: Their number by kind.
        server_cpu_ms: Processor time of the server's processes for an answer.
        generator_cpu_ms: The load generator's.
        late_ms: Open loop: how late requests were sent (99th percentile); it is part of the latencies.
        connections: Open at once at most.
        reopened: Connections that the server closed.
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
    """How answers compare with PyTorch's in fp32, each different one once.

    Attributes:
        compared: Answers.
        same: Of these, with the same label.
        largest: Difference of a probability; nothing where only labels are answered.
    """

    compared: int = 0
    same: int = 0
    largest: float | None = None


@dataclass
class Visit:
    """One server, started once.

    Attributes:
        start_s: Until it answered.
        memory_bytes: Of its processes after all loads.
        processes: How many these were.
        runs: One for each load.
        agreement: Of all its answers.
        failure: Why it could not be measured, if so.
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
        one_per_s: Texts a second, one at a time, a value for each round.
        many_per_s: All texts at once, sorted by length.
        p50_ms: One at a time.
        p99_ms: One at a time.
        memory_bytes: Of its process.
    """

    one_per_s: list[float] = field(default_factory=list)
    many_per_s: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    memory_bytes: list[float] = field(default_factory=list)


@dataclass
class Measured:
    """A server over all rounds.

    Attributes:
        key: Of the server.
        name: Of the server.
        default: Whether it is a peer at its defaults.
        runtime: Of ours: what computes.
        visits: One for each round.
    """

    key: str
    name: str
    default: bool
    runtime: str
    visits: list[Visit] = field(default_factory=list)

    def values(self, load: str, value: Callable[[Run], float]) -> list[float]:
        """A figure of a load, for every round that has it."""
        return [value(run) for visit in self.visits for run in visit.runs if run.load == load]

    def median(self, load: str, value: Callable[[Run], float]) -> float:
        """The median of a figure over the rounds; NaN where there is none."""
        return median(self.values(load, value))

    def errors(self) -> dict[str, int]:
        """Errors of all loads and rounds by kind."""
        total: dict[str, int] = {}
        for visit in self.visits:
            for run in visit.runs:
                for kind, count in run.errors.items():
                    total[kind] = total.get(kind, 0) + count
        return total


def per_s(run: Run) -> float:
    """Good answers a second."""
    return run.per_s


def p50_ms(run: Run) -> float:
    """Median latency."""
    return run.p50_ms


def p99_ms(run: Run) -> float:
    """99th percentile of the latencies."""
    return run.p99_ms


def median(values: Sequence[float]) -> float:
    """The median of the values that are some; NaN of none."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


def open_load(share: float) -> str:
    """What the load is called that is `share` of the capacity."""
    return f"{share:.0%}"


def throughput_table(servers: Iterable[Measured]) -> str:
    """Answers a second in the closed loops, and what they cost."""
    rows = []
    for server in servers:
        visits = [visit for visit in server.visits if not visit.failure]
        if not visits:
            rows.append([server.key, server.name, *["–"] * 7, "did not start", "–"])
            continue
        compared = sum(visit.agreement.compared for visit in visits)
        same = sum(visit.agreement.same for visit in visits)
        largest = [visit.agreement.largest for visit in visits if visit.agreement.largest is not None]
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
                f"{max(largest):.1g}" if largest else "label only",
            ]
        )
    head = [
        "", "server", *(f"{clients} client{'s' if clients > 1 else ''}, texts/s" for clients in CLIENTS),
        "CPU ms/text", "generator's", "MB", "errors", "same label", "largest difference",
    ]  # fmt: skip
    return _table(head, rows)


def closed_table(servers: Iterable[Measured]) -> str:
    """Milliseconds until an answer in the closed loops."""
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
    """Milliseconds until an answer where requests arrive at random times."""
    rows = []
    for server in servers:
        if not any(visit.runs for visit in server.visits):
            continue
        row = [server.key, server.name]
        for load in map(open_load, SHARES):
            row.append(_number(server.median(load, lambda run: run.offered_per_s), ".0f"))
            row += [_spread(server.values(load, value), "ms") for value in (p50_ms, p99_ms)]
            row.append(_number(median(server.values(load, lambda run: run.p99_ms / run.p50_ms)), ".1f"))
        rows.append(row)
    head = ["", "server"]
    for share in SHARES:
        head += [f"{open_load(share)} of its capacity: requests/s", "p50 ms", "p99 ms", "p99 to p50"]
    return _table(head, rows)


def limit_table(limits: dict[str, Limit]) -> str:
    """What the runtimes do without a server."""
    rows = [
        [
            "g",
            name,
            _spread(limit.one_per_s, ".0f"),
            f"{median(limit.p50_ms):.1f}",
            f"{median(limit.p99_ms):.1f}",
            _spread(limit.many_per_s, ".0f"),
            f"{median(limit.memory_bytes) / 1e6:.0f}",
        ]
        for name, limit in limits.items()
    ]
    head = ["", "runtime alone", "one at a time, texts/s", "p50 ms", "p99 ms", "all, sorted by length, texts/s", "MB"]
    return _table(head, rows)


def target_table(servers: Sequence[Measured], limits: dict[str, Limit]) -> str:
    """How ours compare with the best peer at its defaults and with the limit; empty if nothing can be compared."""
    most, last = str(CLIENTS[-1]), open_load(SHARES[-1])
    peers = [each for each in servers if each.default and not math.isnan(each.median("1", p50_ms))]
    rows: list[list[str]] = []

    def add(key: str, what: str, wanted: str, ours: float, other: float) -> None:
        if other and not math.isnan(ours / other):
            rows.append([key, what, wanted, f"{ours / other:.2f}"])

    for ours in (each for each in servers if each.runtime):
        rate = ours.median(most, per_s)
        if peers:
            best = max(peers, key=lambda each: each.median(most, per_s))
            what = f"texts/s at {most} clients, to {best.name}'s ({best.key})"
            add(ours.key, what, "4, better 6", rate, best.median(most, per_s))
        if ours.runtime in limits:
            add(ours.key, "the same, to its runtime alone (g)", "0.7", rate, median(limits[ours.runtime].many_per_s))
        if peers:
            best = min(peers, key=lambda each: each.median("1", p50_ms))
            to = f"to {best.name}'s ({best.key})"
            add(ours.key, f"p50 at 1 client, {to}", "at most 0.5", ours.median("1", p50_ms), best.median("1", p50_ms))
            add(ours.key, f"p99 at 1 client, {to}", "at most 1", ours.median("1", p99_ms), best.median("1", p99_ms))
        add(
            ours.key,
            f"p99 to p50 at {last} of capacity",
            "below 3",
            ours.median(last, p99_ms),
            ours.median(last, p50_ms),
        )
    return _table(["", "ratio", "wanted", "measured"], rows) if rows else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def _number(value: float, form: str) -> str:
    """A figure; `form` is a format, or "ms" for one decimal of what is short and none of what is long."""
    if math.isnan(value):
        return "–"
    return f"{value:{form if form != 'ms' else '.1f' if value < 99.5 else '.0f'}}"


def _spread(values: Sequence[float], form: str) -> str:
    """The median, and the range where there are several values."""
    known = [value for value in values if not math.isnan(value)]
    middle = _number(median(known), form)
    return middle if len(known) < 2 else f"{middle} ({_number(min(known), form)}–{_number(max(known), form)})"
