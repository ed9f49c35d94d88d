"""Documents per second and peak memory of `newsbert predict --file`, next to the limit: the bare runtime.

The limit is the same graph and tokenizer on texts that are in memory already, sorted by length over the whole file,
without a command line, files or answers around it. Both get the same threads, in turns in one run, each in a process
of its own. A rate of the command is given twice: steady, from the first row that is answered to the last as the command
itself sees it, and over all, with the interpreter's start, the imports, loading the model and writing the output.

    python benchmarks/bulk.py BUNDLE ROWS [--rows 10000] [--runs 5] [--workers 2] [--long]

BUNDLE is a directory that training wrote, ROWS a jsonl file (also .gz) of AG News rows with `text`. Memory is measured
at 10,000 and 100,000 rows, with `--long` at 1,000,000 too; rows are repeated where there are fewer. `--runs 0` measures
memory alone. With `--workers`, the command with as many workers is measured in turns with it, too; no memory then.
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
runtime.predict(texts[:16])  # the first call is no measure
started = time.perf_counter()
runtime.predict_prepared([runtime.prepare(text) for text in texts])  # it sorts what it is given
print(len(texts) / (time.perf_counter() - started))
"""

COMMAND = """
import json, re, sys, time
from pathlib import Path
from newsbert.cli import app, predict

begun = []

class Pace(predict._Pace):
    def __call__(self, done, total):
        begun.append((done, time.perf_counter()))
        super().__call__(done, total)

predict._Pace = Pace
model, file, output, *more = sys.argv[1:]
sys.argv = ["newsbert", "predict", "--model", model, "--file", file, "--output", output, *more]
try:
    app.main()
finally:
    (first, started), *_, (last, ended) = begun
    peak = re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]
    print(json.dumps({"steady": (last - first) / (ended - started), "peak_mb": int(peak) * 1024 / 1e6}))
"""


def write(source: Path, target: Path, count: int) -> None:
    def texts() -> Iterator[str]:
        while True:
            for row, _ in readers.stream(source):
                if isinstance(row, dict):
                    yield str(row["text"])

    with target.open("w", encoding="utf-8") as stream:
        for number, text in enumerate(itertools.islice(texts(), count)):
            stream.write(json.dumps({"id": number, "text": text}) + "\n")


def run(script: str, *arguments: object) -> str:
    # A process of its own for every run: peak memory is that of the process.
    command = [sys.executable, "-c", script, *map(str, arguments)]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return result.stdout.splitlines()[-1]


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} | {min(values):.0f} to {max(values):.0f} | {len(values)} |"


def rates(bundle: Path, file: Path, output: Path, count: int, runs: int, workers: int) -> None:
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
        print(f"limit {limits[-1]:.0f}, steady {steady[-1]:.0f}, over all {overall[-1]:.0f}", file=sys.stderr)
    print(f"{count} rows, {cores()} threads\n\n| what | documents/s, median | range | runs |\n|---|---|---|---|")
    print(f"| bare runtime, sorted over the whole file (limit) | {spread(limits)}")
    print(f"| `newsbert predict --file`, steady | {spread(steady)}")
    print(f"| `newsbert predict --file`, from start to end | {spread(overall)}")
    if workers > 1:
        # Its first rows are there only when the workers have loaded the model, which their steady rate so includes.
        print(f"| with `--workers {workers}`, from the connection to Ray to the last answer | {spread(shared_steady)}")
        print(f"| with `--workers {workers}`, from start to end | {spread(shared_overall)}")
    ratios = [one / other for one, other in zip(steady, limits, strict=True)]
    print(f"\nsteady rate / limit, by run: median {statistics.median(ratios):.2f}, "
          f"{min(ratios):.2f} to {max(ratios):.2f}\n", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1, help="measure the command with so many workers as well")
    parser.add_argument("--long", action="store_true", help="measure memory at 1,000,000 rows too")
    given = parser.parse_args()
    os.environ["NO_COLOR"] = "1"
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as name:
        file, output = Path(name) / "in.jsonl", Path(name) / "out.parquet"
        if given.runs:
            write(given.texts, file, given.rows)
            rates(given.bundle, file, output, given.rows, given.runs, given.workers)
        if given.workers > 1:
            return
        print("| rows | peak memory of `newsbert predict --file in.jsonl --output out.parquet` |\n|---|---|")
        for count in [10_000, 100_000, *([1_000_000] if given.long else [])]:
            write(given.texts, file, count)
            print(f"| {count} | {json.loads(run(COMMAND, given.bundle, file, output))['peak_mb']:.0f} MB |", flush=True)


if __name__ == "__main__":
    main()
