"""Measure documents per second and peak memory of `newsbert predict --file`, next to the limit: the runtime alone.

The limit is the same graph and tokenizer on texts that are in memory, sorted by length over the whole file. Both get
the same threads. They take turns in one run, always in a new process. The script prints two rates of the command: the
steady rate, from the first answer to the last, and the rate from start to end, with imports, loading the model and
writing.

    python benchmarks/bulk.py BUNDLE ROWS [--rows 10000] [--runs 5] [--workers 2] [--long]

BUNDLE is a directory that a training wrote. ROWS is a jsonl file (also .gz) of rows with `text`; the script repeats
rows if there are too few. Memory is measured with 10,000 and 100,000 rows, with `--long` also with 1,000,000. `--runs
0` measures memory only. With `--workers`, the command with these workers takes turns too; memory is not measured then.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from newsbert.core.cpu import cores
from newsbert.data import readers

LIMIT = """
import json, sys, time
from pathlib import Path
from newsbert.inference.model import Model

model = Model.from_directory(Path(sys.argv[1]))
texts = [json.loads(line)["text"] for line in Path(sys.argv[2]).open(encoding="utf-8")]
runtime = model._runtime
runtime.predict(texts[:16])  # warms up
started = time.perf_counter()
runtime.predict_prepared([runtime.prepare(text) for text in texts])  # sorts by length
print(len(texts) / (time.perf_counter() - started))
"""

COMMAND = """
import json, re, sys, time
from pathlib import Path
from newsbert.cli import app, predict

calls = []

class Pace(predict._Pace):
    def __call__(self, done, total):
        calls.append((done, time.perf_counter()))
        super().__call__(done, total)

predict._Pace = Pace
model, file, output, *more = sys.argv[1:]
sys.argv = ["newsbert", "predict", "--model", model, "--file", file, "--output", output, *more]
try:
    app.main()
finally:
    (first, started), *_, (last, ended) = calls
    peak = re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]
    print(json.dumps({"steady": (last - first) / (ended - started), "peak_mb": int(peak) * 1024 / 1e6}))
"""


def write_rows(source: Path, target: Path, count: int) -> None:
    def texts() -> Iterator[str]:
        while True:
            for row, _ in readers.stream(source):
                if isinstance(row, dict):
                    yield str(row["text"])

    with target.open("w", encoding="utf-8") as stream:
        for number, text in enumerate(itertools.islice(texts(), count)):
            stream.write(json.dumps({"id": number, "text": text}) + "\n")


def run(script: str, *arguments: object) -> str:
    # A new process for every run: peak memory is that of the process.
    command = [sys.executable, "-c", script, *map(str, arguments)]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return result.stdout.splitlines()[-1]


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} | {min(values):.0f} to {max(values):.0f} | {len(values)} |"


def compare_rates(bundle: Path, file: Path, output: Path, count: int, runs: int, workers: int) -> None:
    limits, steady, overall = [], [], []
    shared_steady, shared_overall = [], []
    for _ in range(runs):
        limits.append(float(run(LIMIT, bundle, file)))
        started = time.perf_counter()
        steady.append(float(json.loads(run(COMMAND, bundle, file, output))["steady"]))
        overall.append(count / (time.perf_counter() - started))
        if workers > 1:
            started = time.perf_counter()
            result = run(COMMAND, bundle, file, output, "--ray-workers", workers)
            shared_steady.append(float(json.loads(result)["steady"]))
            shared_overall.append(count / (time.perf_counter() - started))
        print(f"limit {limits[-1]:.0f}, steady {steady[-1]:.0f}, from start to end {overall[-1]:.0f}", file=sys.stderr)
    print(f"{count} rows, {cores()} threads\n\n| what | documents/s, median | range | runs |\n|---|---|---|---|")
    print(f"| runtime alone (limit) | {spread(limits)}")
    print(f"| `newsbert predict --file`, steady | {spread(steady)}")
    print(f"| `newsbert predict --file`, from start to end | {spread(overall)}")
    if workers > 1:
        # The steady rate includes that the workers load the model: it starts at the connection to Ray.
        print(f"| with `--workers {workers}`, from the connection to Ray to the last answer | {spread(shared_steady)}")
        print(f"| with `--workers {workers}`, from start to end | {spread(shared_overall)}")
    ratios = [rate / limit for rate, limit in zip(steady, limits, strict=True)]
    print(f"\nsteady rate / limit, by run: median {statistics.median(ratios):.2f}, "
          f"{min(ratios):.2f} to {max(ratios):.2f}\n", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1, help="measure the command with this number of workers too")
    parser.add_argument("--long", action="store_true", help="measure memory at 1,000,000 rows too")
    arguments = parser.parse_args()
    os.environ["NO_COLOR"] = "1"
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as name:
        file, output = Path(name) / "in.jsonl", Path(name) / "out.parquet"
        if arguments.runs:
            write_rows(arguments.texts, file, arguments.rows)
            compare_rates(arguments.bundle, file, output, arguments.rows, arguments.runs, arguments.workers)
        if arguments.workers > 1:
            return
        print("| rows | peak memory of `newsbert predict --file in.jsonl --output out.parquet` |\n|---|---|")
        for count in [10_000, 100_000, *([1_000_000] if arguments.long else [])]:
            write_rows(arguments.texts, file, count)
            peak_mb = json.loads(run(COMMAND, arguments.bundle, file, output))["peak_mb"]
            print(f"| {count} | {peak_mb:.0f} MB |", flush=True)


if __name__ == "__main__":
    main()
