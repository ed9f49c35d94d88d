"""Faults under load: workers that are killed, more requests than can be answered, a frontend that dies."""

import asyncio
import contextlib
import json
import random
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from newsbert.bundle.bundle import Bundle
from newsbert.inference.model import Model
from newsbert.serving.torchserve import process
from tests.support import processes
from tests.support.cli import Cli
from tests.support.serving import SLOW, Served, Start

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the benchmarks are not in a source distribution")
sys.path.append(str(BENCHMARKS))
hostile: Any = pytest.importorskip("hostile")
faults: Any = pytest.importorskip("faults")

KILLS = 5


def test_workers_killed_under_load_lose_few_requests_and_change_no_answer(server: process.Server) -> None:
    java = processes.frontend()

    async def run() -> tuple[Any, list[float]]:
        clients = faults.Clients(server.address.port)
        await clients.learn()
        done: tuple[Any, list[float]] = await faults.kill_workers(clients, java, KILLS, 12)
        return done

    outcome, back = asyncio.run(run())
    assert len(back) == KILLS
    assert outcome.wrong == 0
    assert outcome.statuses["200"] > 100
    # The statuses in the README; "no answer" is what TorchServe forgets.
    lost = {status: count for status, count in outcome.statuses.items() if status != "200"}
    assert set(lost) <= {
        "500 InternalServerException",
        "507 InternalServerException",
        "503 ServiceUnavailableException",
        "no answer",
    }, lost
    assert 0 < sum(lost.values()) <= KILLS * 12 * 2


@contextlib.contextmanager
def _workers_killed(served: Served) -> Iterator[list[int]]:
    """Kill a server's worker once it has answered, and the next, again and again."""
    killed: list[int] = []
    stop = threading.Event()

    def kill() -> None:
        while not stop.wait(0.5):
            worker = faults.find_worker(psutil.Process(served.process.pid))
            with contextlib.suppress(psutil.Error, OSError):
                if worker is not None and served.ask() == 200 and worker.is_running():
                    worker.kill()
                    killed.append(worker.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


def test_our_client_loses_nothing_when_workers_are_killed(
    start: Start, cli: Cli, bundle: Bundle, tmp_path: Path
) -> None:
    served = start()
    texts = [f"goal team number {number}" for number in range(5_000)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    with _workers_killed(served) as killed:
        rounds = 0
        while len(killed) < 3:
            rounds += 1
            assert rounds < 20, "no workers were there to be killed"
            done = cli("predict", "--url", served.url, "--file", "in.jsonl", "--output", f"out-{rounds}.jsonl")
            assert done.returncode == 0, done.stderr
    expected = [prediction.label for prediction in Model.from_directory(bundle.path).predict(texts)]
    for number in range(rounds):
        lines = (tmp_path / f"out-{number + 1}.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["label"] for line in lines] == expected


def test_more_than_can_be_answered_is_turned_away_at_once(start: Start) -> None:
    served = start("--queue-size", "20", "--batch-size", "4")

    async def run() -> tuple[Any, float]:
        clients = faults.Clients(served.port, items=100)
        await clients.learn()
        calm = faults.Outcome()
        begin = time.monotonic()
        async with clients.running(8, calm):
            await asyncio.sleep(3)
        capacity = calm.statuses["200"] / (time.monotonic() - begin)
        over = faults.Outcome()
        await clients.send_at_rate(3 * capacity, 5, over)
        return over, capacity

    over, capacity = asyncio.run(run())
    assert set(over.statuses) == {"200", "503 ServiceUnavailableException"}
    assert over.wrong == 0
    # A request that is answered has waited for the queue and a batch or two, not for all requests before it: in five
    # seconds of three times as much, that would be ten. The bound leaves room for a machine that does other things too.
    assert max(over.latencies[200]) < 10 * (20 + 2 * 4) / capacity + 2
    assert served.ask() == 200


def test_a_full_queue_has_its_own_status(start: Start) -> None:
    served = start(*SLOW, "--queue-size", "1", "--batch-size", "1")
    long = hostile.post(json.dumps({"instances": ["goal team cup coach " * 20] * 1000}).encode())
    shape = hostile.Shape("long", {200, 503}, lambda _: long)

    async def run() -> list[Any]:
        rng = random.Random(1)
        return await asyncio.gather(*(hostile.send(served.port, shape, rng) for _ in range(8)))

    answers = asyncio.run(run())
    assert {answer.status for answer in answers} == {200, 503}
    refused = next(json.loads(answer.body) for answer in answers if answer.status == 503)
    assert refused["type"] == "ServiceUnavailableException"


def test_a_frontend_that_is_killed_ends_the_server_with_an_error(start: Start) -> None:
    served = start()
    family = processes.children(served.process.pid)
    served.java().kill()
    assert served.process.wait(30) == 1
    log = served.log.read_text()
    assert "Error: TorchServe stopped by itself (exit code -9)" in log
    assert "Hint:" in log
    _, left = psutil.wait_procs(family, timeout=10)
    assert left == []
