"""A training's steps, with OpenMP's threads as they wait by default and as newsbert has them wait.

`python spinning.py` prints the median time of a step of a MiniLM-sized model for both, alone and beside as many busy
processes as there are cores.
"""

import argparse
import os
import subprocess
import sys

ROUNDS = 3
STEPS = """
import statistics, sys, time, torch
from transformers import BertConfig, BertForSequenceClassification
shape = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, num_labels=4)
model, seconds = BertForSequenceClassification(shape), []
for _ in range(int(sys.argv[1]) + 1):
    started = time.perf_counter()
    ids = torch.randint(0, 1000, (16, 48))
    model(input_ids=ids, labels=torch.zeros(16, dtype=torch.long)).loss.backward()
    seconds.append(time.perf_counter() - started)
print(statistics.median(seconds[1:]))
"""
BUSY = "while True: pass"


def measure(spins: str | None, num_steps: int) -> float:
    """Return the median seconds of a step in a process of its own."""
    environment = {
        name: value for name, value in os.environ.items() if name not in {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}
    }
    if spins is not None:
        environment["GOMP_SPINCOUNT"] = spins
    command = [sys.executable, "-c", STEPS, str(num_steps)]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    for num_busy in (0, cores):
        busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(num_busy)]
        try:
            ratios = []
            for _ in range(ROUNDS):
                default, limited = measure(None, arguments.steps), measure("1000", arguments.steps)
                ratios.append(default / limited)
                print(f"{num_busy} busy processes: {default * 1e3:.0f} ms by default, {limited * 1e3:.0f} ms limited")
        finally:
            for process in busy:
                process.kill()
                process.wait()
        ratio = sorted(ratios)[ROUNDS // 2]
        print(f"{num_busy} busy processes: default / limited = {ratio:.2f} (median of {ROUNDS})")


if __name__ == "__main__":
    main()
