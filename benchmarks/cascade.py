"""Measure what the cascade of a model gains: batch inference and servers with it and without it, in turns.

    python benchmarks/cascade.py BUNDLE ROWS [--rows 20000] [--rounds 3] [--clients 64] [--seconds 10]

BUNDLE is a directory that a training wrote, with a threshold for a cascade. ROWS is a jsonl file of rows with `text`
that the training did not read; their share for the companion decides the gain. Both variants mix the encoder's answers
with the companion's where the encoder reads a text. They have the same threads, and take turns in one run. The rate of
batch inference is the steady one of `newsbert predict --file`, from the first answer to the last. Servers answer a
closed loop of clients. The load generator shares the cores with them.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import measure
from bulk import COMMAND, run, write_rows
from load import Plan
from newsbert.bundle.bundle import Bundle
from newsbert.core.cpu import cores
from newsbert.core.ports import claim_port
from newsbert.data import readers
from newsbert.inference.runtime import InferenceTimings, load_runtime

VARIANTS = ("off", "on")
SERVERS = ("native", "torchserve")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("texts", type=Path, metavar="ROWS")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    bundle = arguments.bundle.resolve()
    texts = [str(row["text"]) for row, _ in readers.stream(arguments.texts) if isinstance(row, dict)]
    timings, runtime = InferenceTimings(), load_runtime(Bundle.read(bundle))
    runtime.predict_prepared([runtime.prepare(text) for text in texts[:5000]], timings)
    print(f"{cores()} threads; the companion answers {np.mean(timings.by_companion):.1%} of the texts\n")
    print("| what | texts/s with the cascade off | on | ratio, median | ratios |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as directory:
        file, output = Path(directory) / "in.jsonl", Path(directory) / "out.jsonl"
        write_rows(arguments.texts, file, arguments.rows)
        rates: list[dict[str, float]] = []
        for _ in range(arguments.rounds):
            rates.append({})
            for variant in VARIANTS:
                printed = json.loads(run(COMMAND, bundle, file, output, "--cascade", variant))
                rates[-1][variant] = float(printed["steady"])
                output.unlink()
        print_row("`newsbert predict --file`, steady", rates)
    for server in SERVERS:
        with contextlib.ExitStack() as stack:
            ports = {variant: stack.enter_context(started(bundle, server, variant)) for variant in VARIANTS}
            rates = []
            for _ in range(arguments.rounds):
                rates.append({})
                for variant, port in ports.items():
                    plan = Plan(
                        port, [make_request(text) for text in texts], arguments.seconds, arguments.clients, warmup_s=2.0
                    )
                    result = measure.generate(plan)
                    rates[-1][variant] = len(result.latencies_s) / result.seconds
        print_row(f"{server} server, {arguments.clients} clients", rates)


def print_row(name: str, rates: list[dict[str, float]]) -> None:
    """Print the medians, and the ratios of the rounds."""
    ratios = [rate["on"] / rate["off"] for rate in rates]
    medians = " | ".join(f"{statistics.median(rate[variant] for rate in rates):.0f}" for variant in VARIANTS)
    print(f"| {name} | {medians} | {statistics.median(ratios):.2f} | "
          f"{', '.join(f'{ratio:.2f}' for ratio in ratios)} |", flush=True)  # fmt: skip


def make_request(text: str) -> str:
    """Return an HTTP request for a prediction, in Latin-1."""
    body = json.dumps({"text": text})
    return (
        "POST /predictions/news_classification HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    )


@contextlib.contextmanager
def started(bundle: Path, server: str, cascade: str) -> Iterator[int]:
    """Serve the model and yield the port."""
    port = claim_port("127.0.0.1", 0)
    command = [
        sys.executable, "-m", "newsbert", "serve", "locally", str(bundle), "--server", server, "--port", str(port),
        "--cascade", cascade, "--json",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            document = ""
            while not document.endswith("}\n"):
                document += process.stdout.readline()
            yield port
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
