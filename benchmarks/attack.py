"""Measure what a neighbour of an attack waits, and what memory the attack takes: without an attack, and beside two.

    python benchmarks/attack.py BUNDLE --seconds 20

One `newsbert serve locally` for all. A neighbour asks for one short text after another, alone, then beside 16 clients
that want explanations of long texts, then beside 32 that send a megabyte of `!`. Memory is that of all processes of the
server, shared pages once; "after" is five seconds after the attack. It fails where the neighbour gets no answer, where
memory reaches 600 MB, or where the neighbour's p99 reaches its bound: 300 ms, and 2 s beside the megabytes, since
TorchServe takes all of them in before the worker sees one, and answers in the order in which they came.
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
from soak import answers_at

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
    """Attack a server, from a process of its own: what the attackers compute is not the neighbour's wait."""
    clients, make, _ = ATTACKS[attack]
    rng, end = random.Random(1), time.monotonic() + seconds
    shape = hostile.Shape(attack, {200}, make)

    async def attacker() -> None:
        while time.monotonic() < end:
            with contextlib.suppress(OSError, TimeoutError):  # an attacker comes again, whatever it gets
                await hostile.send(port, shape, rng)

    async def attackers() -> None:
        await asyncio.gather(*(attacker() for _ in range(clients)))

    asyncio.run(attackers())


def measure(port: int, root: psutil.Process, attack: str, seconds: float) -> tuple[list[float], int, int, int]:
    """Return the neighbour's times, its requests without an answer, and bytes of memory at the most and after it."""
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
        began = time.perf_counter()
        outcome = asyncio.run(hostile.send(port, good, rng))
        times.append(time.perf_counter() - began)
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
    faults = []
    with tempfile.TemporaryDirectory() as work:
        port = claim_port("127.0.0.1", 0)
        command = [sys.executable, "-m", "newsbert", "serve", "locally", str(arguments.bundle.resolve())]
        with started([*command, "--port", str(port)], {"NEWSBERT_STATE_DIR": work}, Path(work)) as root:
            wait_until(lambda: answers_at(port), root, Path(work), 120)
            print(
                "| attack | neighbour's requests | not answered | p50 (ms) | p99 (ms) | memory peak (MB) | after (MB) |"
            )
            print("|---|---|---|---|---|---|---|")
            for attack, (_, _, max_p99_s) in ATTACKS.items():
                times, num_failed, peak, after = measure(port, root, attack, arguments.seconds)
                middle, high = statistics.median(times), sorted(times)[int(0.99 * len(times))]
                print(
                    f"| {attack} | {len(times)} | {num_failed} | {1000 * middle:.1f} | {1000 * high:.1f} | "
                    f"{peak / 1e6:.0f} | {after / 1e6:.0f} |",
                    flush=True,
                )
                faults += [attack] if num_failed or high >= max_p99_s or peak >= MAX_BYTES else []
    print("\n" + ("; ".join(f"too much: {attack}" for attack in faults) or "within the bounds"))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
