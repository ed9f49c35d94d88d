"""Faults under load: workers killed one after the other, and more asked than can be answered.

    python benchmarks/faults.py BUNDLE --kills 10

Clients that each wait for their answer ask a `newsbert serve locally` for texts whose right answers are known, while
its worker is killed (SIGKILL) again and again. Printed are the statuses that requests got, and how long it took until
the next answer. Then three times as much is asked, at random times, as the server answered: how many were turned away,
how fast, and the latency of those that were answered.
"""

import argparse
import asyncio
import collections
import contextlib
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

import hostile
from newsbert.core.ports import claim_port
from processes import started, tree, wait_until
from soak import answers_at

TEXTS = ["stocks market", "goal cup team", "minister border vote", "bank profit", "coach team goal", "treaty minister"]
TOLERANCE = 1e-3
OVERLOAD_ITEMS = 100
_TIMEOUT_S = 20.0
_SETTLE_S = 1.5


@dataclass
class Outcome:
    """What became of requests.

    Attributes:
        statuses: How many got which; the kind of error of the frontend's after it.
        wrong: Answers that were not as alone.
        latencies: Seconds, by status.
    """

    statuses: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: int = 0
    latencies: dict[int, list[float]] = field(default_factory=lambda: collections.defaultdict(list))


class Clients:
    """Clients of one server.

    Args:
        port: Where it listens.
        items: Times that a text is in its request: many, and computing is what takes the time.
    """

    def __init__(self, port: int, items: int = 1) -> None:
        self._port, self._items = port, items
        self._known: dict[str, dict[str, float]] = {}
        self._rng = random.Random(1)

    async def learn(self) -> None:
        """Ask for each text alone."""
        for text in TEXTS:
            answer = await hostile.send(self._port, _asking(text, 1), self._rng)
            self._known[text] = json.loads(answer.body)[0]["probabilities"]

    async def one(self, outcome: Outcome) -> None:
        """Ask once, and note what came of it."""
        text = self._rng.choice(TEXTS)
        begin = time.monotonic()
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                answer = await hostile.send(self._port, _asking(text, self._items), self._rng)
        except TimeoutError:
            outcome.statuses["no answer"] += 1
            return
        except OSError as error:
            outcome.statuses[type(error).__name__] += 1
            return
        now = time.monotonic()
        outcome.latencies[answer.status].append(now - begin)
        kind = ""
        if answer.status == 200:
            said = [each["probabilities"] for each in json.loads(answer.body)]
            off = max(abs(each[label] - value) for each in said for label, value in self._known[text].items())
            outcome.wrong += off > TOLERANCE or len(said) != self._items
        else:
            with contextlib.suppress(ValueError, LookupError):
                kind = f" {json.loads(answer.body)['type']}"
        outcome.statuses[f"{answer.status or 'closed'}{kind}"] += 1

    @contextlib.asynccontextmanager
    async def asking(self, count: int, outcome: Outcome) -> AsyncIterator[None]:
        """So many clients that ask until the block ends."""
        stop = asyncio.Event()

        async def client() -> None:
            while not stop.is_set():
                await self.one(outcome)

        tasks = [asyncio.create_task(client()) for _ in range(count)]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*tasks)

    async def at_rate(self, rate: float, seconds: float, outcome: Outcome) -> None:
        """Ask at random times, so many times a second on average, whether others were answered or not."""
        tasks = []
        due, end = time.monotonic(), time.monotonic() + seconds
        while due < end:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            tasks.append(asyncio.create_task(self.one(outcome)))
            due += self._rng.expovariate(rate)
        await asyncio.gather(*tasks)


def _asking(text: str, items: int) -> hostile.Shape:
    request = hostile.post(json.dumps({"instances": [text] * items}).encode())
    return hostile.Shape("good", {200}, lambda _: request)


def worker(root: psutil.Process) -> psutil.Process | None:
    """The worker that runs, if one does."""
    for each in tree(root):
        with contextlib.suppress(psutil.Error):
            if "model_service_worker.py" in " ".join(each.cmdline()) and each.status() != psutil.STATUS_ZOMBIE:
                return each
    return None


async def _answers_again(clients: Clients, killed: float) -> bool:
    """Tell whether a request that is sent now is answered, and not by what was in flight when the worker was killed."""
    own = Outcome()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            await clients.one(own)
    return time.monotonic() > killed + 0.2 and own.statuses["200"] == 1


async def kill_workers(clients: Clients, root: psutil.Process, kills: int, count: int) -> tuple[Outcome, list[float]]:
    """Kill the worker so many times under load; what became of the requests, and the seconds until the next answer."""
    outcome, back = Outcome(), []
    async with clients.asking(count, outcome):
        for _ in range(kills):
            await asyncio.sleep(_SETTLE_S)
            victim = worker(root)
            assert victim is not None
            os.kill(victim.pid, signal.SIGKILL)
            killed = time.monotonic()
            while not await _answers_again(clients, killed):
                await asyncio.sleep(0.05)
                assert time.monotonic() < killed + 60, "no answer a minute after a worker was killed"
            back.append(time.monotonic() - killed)
    return outcome, back


async def measure(port: int, root: psutil.Process, kills: int, count: int, seconds: float) -> None:
    clients = Clients(port)
    await clients.learn()
    outcome, back = await kill_workers(clients, root, kills, count)
    print(f"worker killed {kills} times under {count} clients\n\n| answer | requests |\n|---|---|")
    for status, number in sorted(outcome.statuses.items()):
        print(f"| {status} | {number} |")
    print(f"\nwrong answers: {outcome.wrong}")
    print(f"back after {statistics.median(back):.1f} s ({min(back):.1f} to {max(back):.1f})\n")
    heavy = Clients(port, items=OVERLOAD_ITEMS)
    await heavy.learn()
    calm = Outcome()
    begin = time.monotonic()
    async with heavy.asking(32, calm):
        await asyncio.sleep(seconds / 2)
    capacity = calm.statuses["200"] / (time.monotonic() - begin)
    over = Outcome()
    await heavy.at_rate(3 * capacity, seconds, over)
    print(f"requests of {OVERLOAD_ITEMS} texts: 32 clients got {capacity:.0f} answers/s; then asked ", end="")
    print(f"{3 * capacity:.0f}/s for {seconds:.0f} s\n")
    print("| answer | requests | median ms | p99 ms | longest ms |\n|---|---|---|---|---|")
    for code, latencies in sorted(over.latencies.items()):
        latencies.sort()
        p99 = latencies[int(0.99 * (len(latencies) - 1))]
        figures = [statistics.median(latencies), p99, latencies[-1]]
        print(f"| {code or 'closed'} | {len(latencies)} | {' | '.join(f'{value * 1e3:.0f}' for value in figures)} |")
    print(f"\n{dict(over.statuses)}; wrong answers: {over.wrong}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--options", default="", help="further ones of newsbert serve locally")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        port = claim_port("127.0.0.1", 0)
        command = [sys.executable, "-m", "newsbert", "serve", "locally", str(arguments.bundle.resolve())]
        command += ["--port", str(port), *arguments.options.split()]
        with started(command, {"NEWSBERT_STATE_DIR": work}, Path(work)) as root:
            wait_until(lambda: answers_at(port), root, Path(work), 120)
            asyncio.run(measure(port, root, arguments.kills, arguments.clients, arguments.seconds))


if __name__ == "__main__":
    main()
