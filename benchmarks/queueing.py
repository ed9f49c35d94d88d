"""Simulate the latency of a perfect server: the runtime's own times, random arrivals, and one queue for all cores.

    python benchmarks/queueing.py BUNDLE TEXTS.jsonl.gz [--load 0.8]

The script measures how long a core takes for every text while the other cores compute, too. Then it simulates requests
with these times that arrive at random (a Poisson process) and are computed in this order, without any other cost. It
prints the percentiles of their latencies: the limit of a server that computes every request alone.
"""

import argparse
import concurrent.futures
import heapq
import random
import time
from pathlib import Path

from measure import SEED, percentile_ms
from newsbert.bundle.bundle import Bundle
from newsbert.inference.runtime import NEVER, Runtime, load_runtime
from serving import read_texts

NUM_REQUESTS = 200_000


def measure_times(runtime: Runtime, texts: list[str]) -> list[float]:
    """Return the seconds that a core takes for every text, tokenizer included."""
    runtime.predict(texts)  # warms up

    def measure(text: str) -> float:
        begin = time.perf_counter()
        encoded = runtime.encode([text], NEVER)
        runtime.compute(encoded.ids, encoded.companion, all_cores=False)
        return time.perf_counter() - begin

    with concurrent.futures.ThreadPoolExecutor(runtime.independent_cores) as cores:
        return list(cores.map(measure, texts))


def simulate(times_s: list[float], num_cores: int, load: float) -> list[float]:
    """Return the sorted latencies of requests in seconds.

    Args:
        times_s: Seconds that a core takes; every request has one of them, at random.
        num_cores: Number of cores.
        load: Arrivals, as a fraction of what the cores can compute.
    """
    generator = random.Random(SEED)
    interval_s = sum(times_s) / len(times_s) / num_cores / load
    free_s = [0.0] * num_cores
    now_s = 0.0
    latencies_s = []
    for _ in range(NUM_REQUESTS):
        now_s += generator.expovariate(1 / interval_s)
        end_s = max(now_s, heapq.heappop(free_s)) + generator.choice(times_s)
        heapq.heappush(free_s, end_s)
        latencies_s.append(end_s - now_s)
    return sorted(latencies_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("texts", type=Path, help='rows with a "text", .jsonl or .jsonl.gz')
    parser.add_argument("--load", type=float, default=0.8, help="arrivals, as a fraction of what the cores can compute")
    parser.add_argument("--count", type=int, default=1000, help="number of texts")
    arguments = parser.parse_args()
    bundle = Bundle.read(arguments.bundle)
    runtime = load_runtime(bundle)
    num_cores = runtime.independent_cores
    times_s = measure_times(runtime, read_texts(arguments.texts, arguments.count, tuple(bundle.contract.cleaning)))
    latencies_s = simulate(times_s, num_cores, arguments.load)
    print("| | p50 ms | p99 ms | p99 to p50 |\n|---|---|---|---|")
    for name, values in (
        (f"one text on one of {num_cores} cores", sorted(times_s)),
        (f"a perfect queue at {arguments.load:.0%} of its capacity", latencies_s),
    ):
        p50, p99 = percentile_ms(values, 50), percentile_ms(values, 99)
        print(f"| {name} | {p50:.1f} | {p99:.1f} | {p99 / p50:.1f} |")


if __name__ == "__main__":
    main()
