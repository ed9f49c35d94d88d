"""Compare ways to quantize a bundle's graph to 8 bits with ONNX Runtime's `quantize_static`.

    python benchmarks/quantization.py BUNDLE ROWS [--rounds 3] [--rows 5000]

BUNDLE is a directory that a training wrote. ROWS is the file of labelled rows that the model was trained on. At most
`--rows` of its test rows are classified. All quantizations of `model.onnx` are made here, from the same calibration
texts: training rows of the file. They find the ranges of the activations by minimum and maximum, by percentile or by
entropy.

All graphs get the same threads and texts. They take turns: a round measures every graph once.
"""

import argparse
import contextlib
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime.quantization import CalibrationMethod

from newsbert.bundle import shared_weights
from newsbert.bundle.bundle import FP32_GRAPH, Bundle
from newsbert.core.cpu import cores
from newsbert.core.types import FloatArray
from newsbert.data.dataset import load_dataset
from newsbert.inference.runtime import Runtime
from newsbert.inference.runtimes.onnxruntime import OnnxGraph
from newsbert.inference.tokenization import SequenceTokenizer
from newsbert.training.export import quantization

NUM_TEXTS, NUM_SINGLE, NUM_ALONE = 300, 50, 100
"""Texts that measure the speed of many, the speed of one at a time, and the difference between alone and in a batch."""


@dataclass
class Measured:
    """A graph and its measurements."""

    runtime: Runtime
    seconds: float
    size_bytes: int
    probabilities: FloatArray = field(init=False)
    many_per_s: list[float] = field(default_factory=list)
    single_per_s: list[float] = field(default_factory=list)


def write_graphs(bundle: Bundle, texts: Sequence[str], directory: Path, threads: int) -> Iterator[tuple[str, Measured]]:
    """Yield every graph with its name."""
    source, pad_id = bundle.path / FP32_GRAPH, bundle.contract.pad_id
    tokenizer = SequenceTokenizer.load(bundle.path / "tokenizer.json", bundle.contract.max_length, pad_id)
    rows = tokenizer.encode(list(texts))

    methods = {
        "**minimum and maximum (newsbert)**": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }
    fp32 = shared_weights.load(source).ByteSize()
    yield "fp32", Measured(load_runtime(bundle, source, threads), 0.0, fp32)
    for number, (name, method) in enumerate(methods.items()):
        target = directory / f"{number}.onnx"
        started = time.perf_counter()
        quantization.write(source, target, rows, pad_id, method)
        seconds = time.perf_counter() - started
        print(f"wrote {name} in {seconds:.0f} s", file=sys.stderr, flush=True)
        yield name, Measured(load_runtime(bundle, target, threads), seconds, target.stat().st_size)


def load_runtime(bundle: Bundle, file: Path, threads: int) -> Runtime:
    """Load a graph as newsbert does: every core computes a batch of its own."""
    return Runtime(bundle, OnnxGraph(file, threads), threads, OnnxGraph(file, 1) if threads > 1 else None)


def measure_rate(runtime: Runtime, batches: Sequence[Sequence[str]]) -> float:
    """Return texts per second."""
    started = time.perf_counter()
    for batch in batches:
        runtime.predict(batch)
    return sum(map(len, batches)) / (time.perf_counter() - started)


def max_difference(probabilities: FloatArray, others: FloatArray) -> float:
    return float(np.abs(probabilities - others).max())


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=cores())
    arguments = parser.parse_args()
    bundle = Bundle.read(arguments.bundle)
    dataset = load_dataset(str(arguments.file), labels=bundle.contract.labels)
    rng = np.random.default_rng(0)  # random rows, because a file may be sorted
    calibration = rng.permutation(len(dataset.train))[: quantization.CALIBRATION_ROWS]
    places = rng.permutation(len(dataset.test))[: arguments.rows]
    texts = [dataset.test.texts[place] for place in places]
    labels = np.asarray([dataset.test.labels[place] for place in places])
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as directory:
        calibration_texts = [dataset.train.texts[place] for place in calibration]
        with contextlib.redirect_stdout(io.StringIO()):  # quantize_static prints lines for every calibration row
            graphs = dict(write_graphs(bundle, calibration_texts, Path(directory), arguments.threads))
        for graph in graphs.values():
            graph.probabilities = graph.runtime.predict(texts)  # also warms up
        for number in range(arguments.rounds):
            for graph in graphs.values():
                graph.many_per_s.append(measure_rate(graph.runtime, [texts[:NUM_TEXTS]]))
                graph.single_per_s.append(measure_rate(graph.runtime, [[text] for text in texts[:NUM_SINGLE]]))
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
        print_table(graphs, texts, labels, arguments)


def print_table(graphs: dict[str, Measured], texts: Sequence[str], labels: Any, arguments: argparse.Namespace) -> None:
    """Print a row per graph."""
    print(f"{len(texts)} test rows, {arguments.threads} threads, median (range) of {arguments.rounds} rounds\n")
    print("| graph | MB | seconds to write | texts/s, sorted | texts/s, one at a time | same label as fp32 | accuracy "
          "| difference to fp32 | difference alone to in a batch |\n|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    expected = graphs["fp32"].probabilities
    fp32_accuracy = 100 * (expected.argmax(axis=1) == labels).mean()
    for name, graph in graphs.items():
        predicted = graph.probabilities.argmax(axis=1)
        same = f"{100 * (predicted == expected.argmax(axis=1)).mean():.2f}%"
        accuracy = f"{100 * (predicted == labels).mean() - fp32_accuracy:+.2f}"
        seconds = f"{graph.seconds:.0f}"
        if name == "fp32":
            same, accuracy, seconds = "", f"{fp32_accuracy:.2f}%", ""
        alone = np.concatenate([graph.runtime.predict([text]) for text in texts[:NUM_ALONE]])
        difference = max_difference(graph.probabilities, expected)
        batch_difference = max_difference(alone, graph.probabilities[: len(alone)])
        print(f"| {name} | {graph.size_bytes / 1e6:.0f} | {seconds} | {spread(graph.many_per_s)} | "
              f"{spread(graph.single_per_s)} | {same} | {accuracy} | {difference:.2f} | {batch_difference:.0e} |",
              flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
