"""Send hostile requests of every shape and good requests to one `newsbert serve locally` for some minutes.

    python benchmarks/soak.py BUNDLE --minutes 10 --requests 20000

Several connections send every shape of `hostile.py` in random order, and between them good requests with known answers.
The script fails if a request gets a status that its shape does not allow, if the answer to a good request differs by
more than 0.001, or if the memory of the server grows too much from the middle to the end. Only some shapes may get a
500 of the frontend. `NEWSBERT_SERVER=native` selects the native server, here and in the other scripts.
"""

import argparse
import asyncio
import collections
import contextlib
import json
import os
import random
import statistics
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

import hostile
from newsbert.core.ports import claim_port
from newsbert.errors import ServingError
from newsbert.serving import probe
from processes import is_worker, memory_bytes, started, tree, wait_until

TOLERANCE = 1e-3
GROWTH_BYTES, GROWTH_RATIO = 32 * 2**20, 0.05
"""Limits of the growth of memory from the middle to the end; the larger one applies."""

_SAMPLE_S = 5.0
_MEMORY_SAMPLES = 3
_OVERLOAD = 503
SERVER = os.environ.get("NEWSBERT_SERVER", "torchserve")
_WORDS = ("stocks", "goal", "minister", "bank", "cup", "profit", "team", "treaty", "market", "coach", "chip", "film")


@dataclass
class Report:
    """Requests and their answers.

    Attributes:
        statuses: Number of answers by status.
        wrong: Number of statuses that are not allowed, by shape and status.
        changed: Texts whose answer differs from the known one.
        frontend: Number of 500s of the frontend.
        good: Number of good requests.
        memory: Seconds, and bytes of the frontend, of the worker and of all processes.
    """

    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    wrong: collections.Counter[str] = field(default_factory=collections.Counter)
    changed: list[str] = field(default_factory=list)
    frontend: int = 0
    good: int = 0
    memory: list[tuple[float, int, int, int]] = field(default_factory=list)

    @property
    def sent(self) -> int:
        """Number of requests."""
        return sum(self.statuses.values())


class Soak:
    """A server and its known answers.

    Args:
        port: Port of the server.
        root: First process of the server.
        seed: Seed of the order of the requests.
    """

    def __init__(self, port: int, root: psutil.Process, seed: int) -> None:
        self.report = Report()
        self._port, self._root, self._rng = port, root, random.Random(seed)
        self._known: dict[str, dict[str, float]] = {}
        self._faults = {shape.name for shape in hostile.FRONTEND_FAULTS}

    async def learn(self, count: int) -> None:
        """Request the answers to random texts alone."""
        for _ in range(count):
            text = " ".join(self._rng.choices(_WORDS, k=self._rng.randrange(1, 40)))
            answer = await hostile.send(self._port, _good(text, "text"), self._rng)
            assert answer.status == 200, answer
            self._known[text] = json.loads(answer.body)["probabilities"]

    async def run(self, minutes: float, requests: int, connections: int) -> None:
        """Send requests evenly over the minutes, or as fast as they are answered."""
        begin, total = time.monotonic(), minutes * 60
        order = self._order(requests)

        async def client() -> None:
            for number, shape in order:
                wait_s = begin + number * total / requests - time.monotonic()
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                await self._send(shape)

        async def watch() -> None:
            while True:
                self._measure(time.monotonic() - begin)
                await asyncio.sleep(_SAMPLE_S)

        watching = asyncio.create_task(watch())
        await asyncio.gather(*(client() for _ in range(connections)))
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        self._measure(time.monotonic() - begin)

    def _order(self, requests: int) -> Iterator[tuple[int, hostile.Shape | None]]:
        """Yield numbers and shapes (`None`: a good request). Every shape comes once in a random order, then again."""
        shapes: list[hostile.Shape | None] = []
        for number in range(requests):
            if not shapes:
                shapes = [*hostile.SHAPES, *[None] * (len(hostile.SHAPES) // 2)]
                self._rng.shuffle(shapes)
            yield number, shapes.pop()

    async def _send(self, shape: hostile.Shape | None) -> None:
        if shape is None:
            await self._send_good()
            return
        try:
            status = (await hostile.send(self._port, shape, self._rng)).status
        except (TimeoutError, OSError) as error:
            self.report.wrong[f"{shape.name}: {type(error).__name__}"] += 1
            return
        self.report.statuses[status] += 1
        self.report.frontend += shape.name in self._faults and status == 500
        if status not in hostile.get_statuses(shape, SERVER) and status != _OVERLOAD:
            self.report.wrong[f"{shape.name}: {status}"] += 1

    async def _send_good(self) -> None:
        text = self._rng.choice(list(self._known))
        form = self._rng.choice(["text", "json", "form", "list"])
        try:
            answer = await hostile.send(self._port, _good(text, form), self._rng)
        except (TimeoutError, OSError) as error:
            self.report.wrong[f"a good request: {type(error).__name__}"] += 1
            return
        self.report.statuses[answer.status] += 1
        self.report.good += 1
        if answer.status == _OVERLOAD:
            return
        if answer.status != 200:
            self.report.wrong[f"a good request: {answer.status}"] += 1
            return
        document = json.loads(answer.body)
        for prediction in document if form == "list" else [document]:
            known = self._known[text]
            if max(abs(prediction["probabilities"][label] - known[label]) for label in known) > TOLERANCE:
                self.report.changed.append(text)

    def _measure(self, second: float) -> None:
        members = tree(self._root)
        java_bytes = sum(member.memory_full_info().pss for member in members if member.name() == "java")
        worker = next(member for member in members if is_worker(member))
        worker_bytes = worker.memory_full_info().pss
        self.report.memory.append((second, java_bytes, worker_bytes, memory_bytes(self._root)))


def _good(text: str, form: str) -> hostile.Shape:
    requests = {
        "text": hostile.post(text.encode(), "text/plain"),
        "form": hostile.post(urllib.parse.urlencode({"data": text}).encode(), "application/x-www-form-urlencoded"),
        "json": hostile.post(json.dumps({"text": text}).encode()),
        "list": hostile.post(json.dumps({"instances": [text] * 3}).encode()),
    }
    return hostile.Shape("good", {200}, lambda _: requests[form])


def _memory_at(report: Report, fraction: float) -> tuple[int, ...]:
    """Return memory after a fraction of the time: the median of a few samples, because garbage is collected."""
    middle = round(fraction * (len(report.memory) - 1))
    start = max(0, min(middle - _MEMORY_SAMPLES // 2, len(report.memory) - _MEMORY_SAMPLES))
    samples = report.memory[start : start + _MEMORY_SAMPLES]
    return tuple(int(statistics.median(column)) for column in list(zip(*samples, strict=True))[1:])


def list_faults(report: Report) -> list[str]:
    """Return the faults of the server."""
    faults = [f"{count} × {name}" for name, count in sorted(report.wrong.items())]
    faults += [f"answer differs from the known one: {text[:60]!r}" for text in report.changed[:10]]
    middle, end = _memory_at(report, 0.5)[-1], _memory_at(report, 1.0)[-1]
    if end - middle > max(GROWTH_BYTES, GROWTH_RATIO * middle):
        faults.append(f"memory grew from {middle / 1e6:.0f} to {end / 1e6:.0f} MB in the second half")
    return faults


async def soak(port: int, root: psutil.Process, minutes: float, requests: int, connections: int, seed: int) -> Report:
    """Request the known answers, warm up with one request of every shape, and start."""
    running = Soak(port, root, seed)
    await running.learn(60)
    await running.run(0, len(hostile.SHAPES), connections)
    running.report.memory.clear()
    await running.run(minutes, requests, connections)
    return running.report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        port = claim_port("127.0.0.1", 0)
        command = [sys.executable, "-m", "newsbert", "serve", "locally", str(arguments.bundle.resolve())]
        command += ["--port", str(port)]
        with started(command, {"NEWSBERT_STATE_DIR": work}, Path(work)) as root:
            wait_until(lambda: is_ready(port), root, Path(work), 120)
            report = asyncio.run(
                soak(port, root, arguments.minutes, arguments.requests, arguments.connections, arguments.seed)
            )
            logged = len((Path(work) / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines())
    print(f"{report.sent} requests, {report.good} of them good, {len(hostile.SHAPES)} shapes; {logged} lines logged")
    print("\n| status | answers |\n|---|---|")
    for status, count in sorted(report.statuses.items()):
        print(f"| {status or 'closed'} | {count} |")
    print(f"\n{report.frontend} of the 500s are of the frontend, for shapes that allow it\n")
    print("| memory (MB) | start | middle | end |\n|---|---|---|---|")
    moments = [_memory_at(report, fraction) for fraction in (0.0, 0.5, 1.0)]
    for name, row in zip(("Java", "worker", "all"), zip(*moments, strict=True), strict=True):
        print(f"| {name} | {' | '.join(f'{value / 1e6:.0f}' for value in row)} |")
    faults = list_faults(report)
    print("\n" + ("\n".join(faults) or "no faults"))
    return 1 if faults else 0


def is_ready(port: int) -> bool:
    """Return whether the model on a port answers."""
    try:
        probe.ask(f"http://127.0.0.1:{port}", None, 10)
    except ServingError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
