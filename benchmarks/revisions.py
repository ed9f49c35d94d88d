"""Two revisions of newsbert side by side: rows trained per second, texts served per second, and answers.

    python benchmarks/revisions.py OLD NEW ROWS [--rounds 3] [--train-rows 8000]

OLD and NEW are the programs `newsbert` of two environments. ROWS is a file of labelled rows as JSON Lines, compressed
with gzip. Each program trains on the first `--train-rows` rows, serves its own model, and classifies the 200 rows that
follow. The programs take turns: a round trains and serves once with both. A ratio is computed in every round.
"""

import argparse
import gzip
import itertools
import json
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from newsbert.core.ports import claim_port

AGREEMENT_TEXTS = 200
CLIENTS = (1, 64)
LOAD_S, WARMUP_S = 8.0, 2.0


@dataclass
class Measurements:
    """Measurements of one program, a value for each round.

    Attributes:
        rows_per_s: Rows trained per second.
        accuracy: Accuracy on the test rows.
        texts_per_s: Texts answered per second, by number of clients.
        probabilities: Probabilities of the texts for the agreement, of the first round's model.
    """

    rows_per_s: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    texts_per_s: dict[int, list[float]] = field(default_factory=lambda: {clients: [] for clients in CLIENTS})
    probabilities: list[dict[str, float]] = field(default_factory=list)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--train-rows", type=int, default=8000)
    options = parser.parse_args()
    with gzip.open(options.rows, "rt", encoding="utf-8") as stream:
        rows = list(itertools.islice(stream, options.train_rows + AGREEMENT_TEXTS))
    train_rows, other_rows = rows[: options.train_rows], rows[options.train_rows :]
    old, new = Measurements(), Measurements()
    with tempfile.TemporaryDirectory(prefix="newsbert-revisions-") as directory:
        for number in range(options.rounds):
            for name, measurements in (("old", old), ("new", new)):
                work = Path(directory) / f"{name}-{number}"
                work.mkdir()
                measure(getattr(options, name).absolute(), train_rows, other_rows, work, measurements)
                print(f"round {number + 1}, {name}: done", file=sys.stderr, flush=True)
    print_table(old, new)


def measure(
    program: Path, train_rows: Sequence[str], other_rows: Sequence[str], work: Path, measurements: Measurements
) -> None:
    """Train, serve and classify once with a program."""
    (work / "train.jsonl").write_text("".join(train_rows), encoding="utf-8")
    other_texts = [json.dumps({"text": json.loads(row)["text"]}) + "\n" for row in other_rows]
    (work / "other.jsonl").write_text("".join(other_texts), encoding="utf-8")
    result = run(program, work, "train", "--data", "train.jsonl", "--epochs", "1", "--json")
    measurements.rows_per_s.append(len(train_rows) / result["training_seconds"])
    measurements.accuracy.append(result["metrics"]["accuracy"])
    bundle = str(result["bundle"])
    if not measurements.probabilities:
        run(program, work, "predict", "--model", bundle, "--file", "other.jsonl", "--output", "out.jsonl", "--json")
        lines = (work / "out.jsonl").read_text(encoding="utf-8").splitlines()
        measurements.probabilities = [json.loads(line)["probabilities"] for line in lines]
    texts = [json.loads(row)["text"] for row in train_rows[:1000]]
    for clients, rate in serve_and_load(program, bundle, texts, work).items():
        measurements.texts_per_s[clients].append(rate)


def run(program: Path, work: Path, *arguments: str) -> Any:
    """Run a command of newsbert, and return the JSON document that it prints."""
    done = subprocess.run([str(program), *arguments], cwd=work, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def serve_and_load(program: Path, bundle: str, texts: Sequence[str], work: Path) -> dict[int, float]:
    """Serve a bundle, and return the texts answered per second for each number of clients."""
    port = claim_port("127.0.0.1", 0)
    command = [str(program), "serve", "locally", bundle, "--port", str(port), "--json"]
    with (work / "server.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=work, stdout=subprocess.PIPE, stderr=log)
    assert server.stdout is not None
    server.stdout.readline()  # ready
    path = "/predictions/news_classification"
    requests = [request(path, text) for text in texts]
    rates = {}
    for clients in CLIENTS:
        plan = {"port": port, "requests": requests, "seconds": LOAD_S, "clients": clients, "warmup_s": WARMUP_S}
        load = [sys.executable, str(Path(__file__).with_name("load.py"))]
        done = subprocess.run(load, input=json.dumps(plan), text=True, check=True, stdout=subprocess.PIPE)
        result = json.loads(done.stdout)
        rates[clients] = len(result["latencies_s"]) / result["seconds"]
    server.send_signal(signal.SIGINT)
    server.communicate()
    return rates


def request(path: str, text: str) -> str:
    """Return a whole HTTP request, in Latin-1 as the load generator takes it."""
    body = json.dumps({"text": text})
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    )


def print_table(old: Measurements, new: Measurements) -> None:
    """Print medians, and the median of the ratios of all rounds."""
    lines = [("training rows/s", old.rows_per_s, new.rows_per_s)]
    lines += [
        (f"texts/s, {clients} clients", old.texts_per_s[clients], new.texts_per_s[clients]) for clients in CLIENTS
    ]
    print("| | old | new | new / old, median (min to max) |\n|---|---|---|---|")
    for name, before, after in lines:
        ratios = [value / other for value, other in zip(after, before, strict=True)]
        print(
            f"| {name} | {statistics.median(before):.0f} | {statistics.median(after):.0f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )
    print(f"| accuracy | {old.accuracy[0]:.4f} | {new.accuracy[0]:.4f} | |")
    pairs = list(zip(old.probabilities, new.probabilities, strict=True))
    difference = max(
        abs(probability - after[label]) for before, after in pairs for label, probability in before.items()
    )
    num_same = sum(max(before, key=before.__getitem__) == max(after, key=after.__getitem__) for before, after in pairs)
    print(f"\n{num_same} of {len(pairs)} labels are the same; largest difference of a probability: {difference:.2g}")


if __name__ == "__main__":
    main()
