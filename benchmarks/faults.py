"""Measure how a server recovers from killed workers, and how it answers more requests than it can process.

    python benchmarks/faults.py BUNDLE --kills 10

Clients send texts with known answers to `newsbert serve locally`. Every client waits for its answer before it sends the
next request. Meanwhile the script kills the worker (SIGKILL) several times. It prints the statuses of the answers, and
the time until the next answer. Then it sends requests at random times, at three times the rate that the server
answered. It prints the number of rejected requests and of answers, and their latencies.
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
from processes import is_worker, started, tree, wait_until
from soak import is_ready

TEXTS = ["stocks market", "goal cup team", "minister border vote", "bank profit", "coach team goal", "treaty minister"]
TOLERANCE = 1e-3
OVERLOAD_ITEMS = 100
_TIMEOUT_S = 20.0
_SETTLE_S = 1.5


@dataclass
class Outcome:
    """Results of requests.

    Attributes:
        statuses: Number of answers by status; the type of an error of the frontend is appended.
        wrong: Number of answers that differ from those to the texts alone.
        latencies: Seconds, by status.
    """

    statuses: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: int = 0
    latencies: dict[int, list[float]] = field(default_factory=lambda: collections.defaultdict(list))


class Clients:
    """Clients of one server.

    Args:
        port: Port of the server.
        items: Number of times that a text is in its request. With many, most of the time is computation.
    """

    def __init__(self, port: int, items: int = 1) -> None:
        self._port, self._items = port, items
        self._known: dict[str, dict[str, float]] = {}
        self._rng = random.Random(1)

    async def learn(self) -> None:
        """Request the answer to every text alone."""
        for text in TEXTS:
            answer = await hostile.send(self._port, _request(text, 1), self._rng)
            self._known[text] = json.loads(answer.body)[0]["probabilities"]

    async def send_one(self, outcome: Outcome) -> None:
        """Send a request, and record its result."""
        text = self._rng.choice(TEXTS)
        begin = time.monotonic()
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                answer = await hostile.send(self._port, _request(text, self._items), self._rng)
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
            predictions = [item["probabilities"] for item in json.loads(answer.body)]
            difference = max(
                abs(probabilities[label] - value)
                for probabilities in predictions
                for label, value in self._known[text].items()
            )
            outcome.wrong += difference > TOLERANCE or len(predictions) != self._items
        else:
            with contextlib.suppress(ValueError, LookupError):
                kind = f" {json.loads(answer.body)['type']}"
        outcome.statuses[f"{answer.status or 'closed'}{kind}"] += 1

    @contextlib.asynccontextmanager
    async def running(self, count: int, outcome: Outcome) -> AsyncIterator[None]:
        """Run clients that send requests until the block ends."""
        stop = asyncio.Event()

        async def client() -> None:
            while not stop.is_set():
                await self.send_one(outcome)

        tasks = [asyncio.create_task(client()) for _ in range(count)]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*tasks)

    async def send_at_rate(self, rate: float, seconds: float, outcome: Outcome) -> None:
        """Send requests at random times, `rate` per second on average, without waiting for answers."""
        tasks = []
        due, end = time.monotonic(), time.monotonic() + seconds
        while due < end:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            tasks.append(asyncio.create_task(self.send_one(outcome)))
            due += self._rng.expovariate(rate)
        await asyncio.gather(*tasks)


def _request(text: str, items: int) -> hostile.Shape:
    request = hostile.post(json.dumps({"instances": [text] * items}).encode())
    return hostile.Shape("good", {200}, lambda _: request)


def find_worker(root: psutil.Process) -> psutil.Process | None:
    """Return the running worker, if there is one."""
    for process in tree(root):
        with contextlib.suppress(psutil.Error):
            if is_worker(process) and process.status() != psutil.STATUS_ZOMBIE:
                return process
    return None


async def _answers_again(clients: Clients, killed: float) -> bool:
    """Return whether a request that is sent now gets an answer, after those in flight at the kill."""
    outcome = Outcome()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            await clients.send_one(outcome)
    return time.monotonic() > killed + 0.2 and outcome.statuses["200"] == 1


async def kill_workers(clients: Clients, root: psutil.Process, kills: int, count: int) -> tuple[Outcome, list[float]]:
    """Kill the worker under load, and return the results and the seconds until the next answer after every kill."""
    outcome, recovery_s = Outcome(), []
    async with clients.running(count, outcome):
        for _ in range(kills):
            await asyncio.sleep(_SETTLE_S)
            process = find_worker(root)
            assert process is not None
            os.kill(process.pid, signal.SIGKILL)
            killed = time.monotonic()
            while not await _answers_again(clients, killed):
                await asyncio.sleep(0.05)
                assert time.monotonic() < killed + 60, "no answer a minute after a worker was killed"
            recovery_s.append(time.monotonic() - killed)
    return outcome, recovery_s


async def measure(port: int, root: psutil.Process, kills: int, count: int, seconds: float) -> None:
    clients = Clients(port)
    await clients.learn()
    outcome, recovery_s = await kill_workers(clients, root, kills, count)
    print(f"worker killed {kills} times under {count} clients\n\n| answer | requests |\n|---|---|")
    for status, number in sorted(outcome.statuses.items()):
        print(f"| {status} | {number} |")
    print(f"\nwrong answers: {outcome.wrong}")
    print(f"next answer after {statistics.median(recovery_s):.1f} s ({min(recovery_s):.1f} to {max(recovery_s):.1f})\n")
    heavy = Clients(port, items=OVERLOAD_ITEMS)
    await heavy.learn()
    calm = Outcome()
    begin = time.monotonic()
    async with heavy.running(32, calm):
        await asyncio.sleep(seconds / 2)
    capacity = calm.statuses["200"] / (time.monotonic() - begin)
    over = Outcome()
    await heavy.send_at_rate(3 * capacity, seconds, over)
    print(f"requests of {OVERLOAD_ITEMS} texts: 32 clients got {capacity:.0f} answers/s; then ", end="")
    print(f"{3 * capacity:.0f} requests/s for {seconds:.0f} s\n")
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
    parser.add_argument("--options", default="", help="further options of newsbert serve locally")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        port = claim_port("127.0.0.1", 0)
        command = [sys.executable, "-m", "newsbert", "serve", "locally", str(arguments.bundle.resolve())]
        command += ["--port", str(port), *arguments.options.split()]
        with started(command, {"NEWSBERT_STATE_DIR": work}, Path(work)) as root:
            wait_until(lambda: is_ready(port), root, Path(work), 120)
            asyncio.run(measure(port, root, arguments.kills, arguments.clients, arguments.seconds))


if __name__ == "__main__":
    main()
