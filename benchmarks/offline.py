"""Measure a runtime without a server: the limit of a server with this runtime.

The script measures one text at a time, and all texts at once, sorted by length. Tokenization is included. It is a
separate process, so that its memory can be measured.

    python benchmarks/offline.py BUNDLE RUNTIME THREADS SECONDS < texts.json > result.json
"""

import json
import sys
import time
from pathlib import Path

import psutil

from newsbert.bundle.bundle import Bundle
from newsbert.inference.runtime import load_runtime

MIN_ROUNDS = 3


def main() -> None:
    bundle = Bundle.read(Path(sys.argv[1]))
    texts: list[str] = json.load(sys.stdin)
    seconds = float(sys.argv[4])
    runtime = load_runtime(bundle, sys.argv[2], int(sys.argv[3]))
    probabilities = runtime.predict(texts)  # also warms up

    latencies_s: list[float] = []
    end = time.perf_counter() + seconds
    while (now := time.perf_counter()) < end:
        runtime.predict([texts[len(latencies_s) % len(texts)]])
        latencies_s.append(time.perf_counter() - now)

    rates: list[float] = []
    end = time.perf_counter() + seconds
    while (now := time.perf_counter()) < end or len(rates) < MIN_ROUNDS:
        runtime.predict(texts)
        rates.append(len(texts) / (time.perf_counter() - now))

    document = {
        "latencies_s": latencies_s,
        "many_per_s": rates,
        "memory_bytes": psutil.Process().memory_full_info().pss,
        "probabilities": probabilities.tolist(),
    }
    json.dump(document, sys.stdout)


if __name__ == "__main__":
    main()
