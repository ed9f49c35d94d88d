"""Peak memory of `newsbert train`, and how long it takes to its first step, by the number of rows on the disk.

    python benchmarks/training_memory.py [ROWS ...]     default: 10000 1000000 10000000

Rows are sentences of the bundled sample's words. Each training makes 50 steps, once with an empty cache and once again.
Peak memory is that of the process, memory-mapped pages included. Ten million rows take 9 GB on the disk.
"""

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

STEPS = 50


def main() -> None:
    print("| rows | peak MB | first step after s | baseline s | again: peak MB | first step after s | baseline s |")
    print("|---|---|---|---|---|---|---|")
    for rows in map(int, sys.argv[1:] or ("10000", "1000000", "10000000")):
        with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as directory:
            os.chdir(directory)
            write(Path("rows.jsonl"), rows)
            found = [train() for _ in range(2)]
        figures = " | ".join(f"{peak / 1e6:.0f} | {seconds:.1f} | {baseline:.1f}" for peak, seconds, baseline in found)
        print(f"| {rows} | {figures} |", flush=True)


def write(file: Path, rows: int) -> None:
    """Write so many rows of four classes."""
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


def train() -> tuple[int, float, float]:
    """Train; return peak memory in bytes, the seconds to the first step, and those of them that the baseline took."""
    command = [sys.executable, "-m", "newsbert", "train", "--data", "rows.jsonl", "--max-steps", str(STEPS)]
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
