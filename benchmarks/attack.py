"""Measure the latency of an ordinary client, and the memory of the server, with and without an attack.

    python benchmarks/attack.py BUNDLE --seconds 20

The script starts one `newsbert serve locally`. An ordinary client (the neighbour) sends one short text after another:
alone, then beside 16 clients that request explanations of long texts, then beside 32 clients that send 1 MB of `!`.
Memory is that of all processes of the server; shared pages count once. "After" is five seconds after the attack.

The script fails if the neighbour gets no answer, if memory reaches 600 MB, or if the p99 of the neighbour reaches its
limit. The limit is 300 ms, and 2 s beside the requests of 1 MB: TorchServe reads all of them before the worker gets the
first, and answers in order of arrival.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

import hostile
from newsbert.core.ports import claim_port
from processes import memory_bytes, started, wait_until
from soak import is_ready

MAX_BYTES = 600 * 10**6
_AFTER_S = 5.0
_WORDS = ("stocks", "goal", "minister", "bank", "cup", "profit", "team", "treaty", "market", "coach", "chip", "film")


def _explanations(rng: random.Random) -> bytes:
    text = " ".join(rng.choices(_WORDS, k=150))
    return hostile.post(
        json.dumps({"instances": [{"text": f"{text} {n}", "explain": True} for n in range(10)]}).encode()
    )


def _exclamations(_: random.Random) -> bytes:
    return hostile.post(b"!" * 1_000_000, "text/plain")


ATTACKS: dict[str, tuple[int, Callable[[random.Random], bytes], float]] = {
    "no attack": (0, _exclamations, 0.3),
    "16 × 10 explanations": (16, _explanations, 0.3),
    "32 × 1 MB of !": (32, _exclamations, 2.0),
}


def flood(port: int, attack: str, seconds: float) -> None:
    """Attack a server, in a separate process: the neighbour does not wait for the attackers' own computations."""
    clients, make, _ = ATTACKS[attack]
    rng, end = random.Random(1), time.monotonic() + seconds
    shape = hostile.Shape(attack, {200}, make)

    async def attacker() -> None:
        while time.monotonic() < end:
            with contextlib.suppress(OSError, TimeoutError):  # an attacker continues after any error
                await hostile.send(port, shape, rng)

    async def attackers() -> None:
        await asyncio.gather(*(attacker() for _ in range(clients)))

    asyncio.run(attackers())


def measure(port: int, root: psutil.Process, attack: str, seconds: float) -> tuple[list[float], int, int, int]:
    """Return the neighbour's times, its number of requests without an answer, and memory in bytes: peak and after."""
    times, num_failed, peak = [], 0, 0
    good = hostile.Shape("good", {200}, lambda _: hostile.post(b"stocks fall as oil rises", "text/plain"))
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.5):
            peak = max(peak, memory_bytes(root))

    watching = threading.Thread(target=watch)
    flooding = multiprocessing.get_context("spawn").Process(target=flood, args=(port, attack, seconds))
    watching.start()
    flooding.start()
    rng, end = random.Random(2), time.monotonic() + seconds
    while time.monotonic() < end:
        started_s = time.perf_counter()
        outcome = asyncio.run(hostile.send(port, good, rng))
        times.append(time.perf_counter() - started_s)
        num_failed += outcome.status != 200
        time.sleep(0.01)
    flooding.join()
    time.sleep(_AFTER_S)
    ended.set()
    watching.join()
    return times, num_failed, peak, memory_bytes(root)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    failures = []
    with tempfile.TemporaryDirectory() as work:
        port = claim_port("127.0.0.1", 0)
        command = [sys.executable, "-m", "newsbert", "serve", "locally", str(arguments.bundle.resolve())]
        with started([*command, "--port", str(port)], {"NEWSBERT_STATE_DIR": work}, Path(work)) as root:
            wait_until(lambda: is_ready(port), root, Path(work), 120)
            print(
                "| attack | neighbour's requests | not answered | p50 (ms) | p99 (ms) | memory peak (MB) | after (MB) |"
            )
            print("|---|---|---|---|---|---|---|")
            for attack, (_, _, max_p99_s) in ATTACKS.items():
                times, num_failed, peak, after = measure(port, root, attack, arguments.seconds)
                median, p99 = statistics.median(times), sorted(times)[int(0.99 * len(times))]
                print(
                    f"| {attack} | {len(times)} | {num_failed} | {1000 * median:.1f} | {1000 * p99:.1f} | "
                    f"{peak / 1e6:.0f} | {after / 1e6:.0f} |",
                    flush=True,
                )
                failures += [attack] if num_failed or p99 >= max_p99_s or peak >= MAX_BYTES else []
    print("\n" + ("; ".join(f"limit exceeded: {attack}" for attack in failures) or "within the limits"))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
