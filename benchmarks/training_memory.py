"""Measure peak memory of `newsbert train`, and the time until its first step, by the number of rows on the disk.

    python benchmarks/training_memory.py [ROWS ...] [--steps 50]

The default of ROWS is 10000 1000000 10000000. Rows are random words of the bundled sample. Every training makes the
same number of steps, first with an empty cache and then again.
Peak memory is that of the process, with memory-mapped pages. Ten million rows take 9 GB on the disk.
"""

import argparse
import csv
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from importlib import resources
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=int, nargs="*", default=[10_000, 1_000_000, 10_000_000])
    parser.add_argument("--steps", type=int, default=50)
    arguments = parser.parse_args()
    print("| rows | peak MB | first step after s | baseline s | again: peak MB | first step after s | baseline s |")
    print("|---|---|---|---|---|---|---|")
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as directory:
            os.chdir(directory)
            write(Path("rows.jsonl"), rows)
            runs = [train(arguments.steps) for _ in range(2)]
        figures = " | ".join(f"{peak / 1e6:.0f} | {seconds:.1f} | {baseline:.1f}" for peak, seconds, baseline in runs)
        print(f"| {rows} | {figures} |", flush=True)


def write(file: Path, rows: int) -> None:
    """Write rows of four classes."""
    sample = (resources.files("newsbert") / "data/sample.csv").read_text(encoding="utf-8")
    items = list(csv.DictReader(io.StringIO(sample)))
    labels = sorted({item["label"] for item in items})
    words = {label: " ".join(item["text"] for item in items if item["label"] == label).split() for label in labels}
    draw = random.Random(1)
    with file.open("w", encoding="utf-8") as stream:
        for row in range(rows):
            label = labels[row % len(labels)]
            text = " ".join(draw.choices(words[label], k=35))
            stream.write(json.dumps({"text": f"{text} {row}", "label": label}) + "\n")


def train(steps: int) -> tuple[int, float, float]:
    """Train, and return peak memory in bytes, the seconds until the first step, and those of the baseline."""
    command = [sys.executable, "-m", "newsbert", "train", "--data", "rows.jsonl", "--max-steps", str(steps)]
    started = time.perf_counter()
    reached: dict[str, float] = {}
    with subprocess.Popen(
        command, env={**os.environ, "NEWSBERT_CACHE_DIR": "cache"}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            reached.setdefault(line.partition(" ")[0], time.perf_counter() - started)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return usage.ru_maxrss * 1024, reached["training"], reached["tokenizing"] - reached["fitting"]


if __name__ == "__main__":
    main()
