"""Compare the time of a training step when OpenMP's threads spin as by default, and when newsbert limits the spinning.

    python benchmarks/spinning.py [--rounds 3] [--steps 10]

The model has the size of MiniLM. Both are measured alone, and beside as many busy processes as there are cores.
"""

import argparse
import os
import statistics
import subprocess
import sys

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
    """Return the median seconds of a step, in a new process."""
    environment = {
        name: value for name, value in os.environ.items() if name not in {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}
    }
    if spins is not None:
        environment["GOMP_SPINCOUNT"] = spins
    command = [sys.executable, "-c", STEPS, str(num_steps)]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    for num_busy in (0, cores):
        busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(num_busy)]
        try:
            ratios = []
            for _ in range(arguments.rounds):
                default, limited = measure(None, arguments.steps), measure("1000", arguments.steps)
                ratios.append(default / limited)
                print(f"{num_busy} busy processes: {default * 1e3:.0f} ms by default, {limited * 1e3:.0f} ms limited")
        finally:
            for process in busy:
                process.kill()
                process.wait()
        ratio = statistics.median(ratios)
        print(f"{num_busy} busy processes: default / limited = {ratio:.2f} (median of {arguments.rounds} rounds)")


if __name__ == "__main__":
    main()
