"""Measure what a companion adds to an encoder: accuracy of the mix, coverage and loss of the cascade, and its bound.

    python benchmarks/two_tiers.py ROWS [--rows 512 2000 15000 all] [--seeds 1 2 3] [--results FILE] [--keep DIR]

ROWS is a file of labelled AG News rows, such as `train.jsonl.gz` with integer labels. A training is `newsbert train`
with a directory of rows, the same number of every class; validation rows are split off them. Encoder, companion, mix
and cascade of one training are scored on the same rows: the test rows that `newsbert train` splits off ROWS, and up to
`--held-out` other rows that the training did not read. The interval of a difference is that of paired rows.

The bound of the cascade is tried on the held-out rows: 200 times, as many rows as the training had for validation are
drawn from them, with replacement. A mix and a threshold are chosen on these, and the loss is measured on all held-out
rows. It must not exceed the accepted one in more than 5% of these trials.

The script appends its measurements to `--results`, and does not repeat those that are there. `--keep` retains the
bundles, as `ROWS-SEED/bundle`, for other benchmarks; bundles that are there are not trained again.
"""

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import recorded
from learning_curve import EPOCHS, draw, write
from newsbert.bundle.bundle import COMPANION_FILE, Bundle
from newsbert.core import cpu
from newsbert.core.types import FloatArray, IntArray
from newsbert.data.dataset import load_dataset
from newsbert.data.sources import AG_NEWS_LABELS
from newsbert.evaluation import mixing
from newsbert.evaluation.calibration import calibration_error, reliability
from newsbert.inference.companion import Companion
from newsbert.inference.runtime import NEVER, load_runtime

RESULTS = Path(__file__).parent / "results" / "two_tiers.jsonl"
RESAMPLINGS = 200
TIMED_TEXTS = 2_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="ROWS")
    parser.add_argument("--rows", nargs="+", default=["512", "2000", "15000", "all"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--held-out", type=int, default=12_000, help="rows to score besides the test rows")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--keep", type=Path, help="directory in which the bundles stay")
    arguments = parser.parse_args()
    dataset = load_dataset(str(arguments.data), labels=AG_NEWS_LABELS)
    for size, seed in recorded.iterate_missing(arguments.results, arguments.rows, arguments.seeds):
        rows = dataset.train if size == "all" else draw(dataset.train, int(size), seed)
        with contextlib.ExitStack() as stack:
            if arguments.keep is None:
                directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="newsbert-benchmark-")))
            else:
                directory = arguments.keep.resolve() / f"{size}-{seed}"
            files = directory / "rows"
            files.mkdir(parents=True, exist_ok=True)
            write(files / "train.jsonl", rows)
            write(files / "test.jsonl", dataset.test)
            known = set(rows.texts)
            others = [row for row, text in enumerate(dataset.train.texts) if text not in known]
            others = np.random.default_rng(0).permutation(others)[: arguments.held_out].astype(int).tolist()
            texts = [*dataset.test.texts, *(dataset.train.texts[row] for row in others)]
            labels = np.concatenate([dataset.test.labels, np.asarray(dataset.train.labels)[others]]).astype(np.int64)
            result = measure(files, seed, EPOCHS.get(size), texts, labels)
            recorded.add(arguments.results, {"rows": size, "seed": seed} | result)
    print_tables(recorded.read(arguments.results))


def measure(files: Path, seed: int, epochs: float | None, texts: list[str], labels: IntArray) -> dict[str, Any]:
    """Train with `newsbert train`, and score encoder, companion, mix and cascade on held-out rows."""
    command = [
        str(Path(sys.executable).with_name("newsbert")), "train", "--data", str(files), "--seed", str(seed),
        "--labels", ",".join(AG_NEWS_LABELS), "--output-dir", "bundle", *(["--epochs", str(epochs)] if epochs else []),
    ]  # fmt: skip
    if not (files.parent / "bundle").exists():
        subprocess.run(command, cwd=files.parent, check=True, stdout=subprocess.DEVNULL)
    bundle = Bundle.read_unsigned(files.parent / "bundle")
    encoder = load_runtime(bundle.without_companion()).predict_prepared(texts)
    result = {
        "encoder": accuracy(encoder, labels),
        "encoder_ece": expected_calibration_error(encoder, labels),
        "validation_rows": bundle.contract.data["rows"]["validation"],
        "test_rows": len(labels),
    }
    info = bundle.contract.companion
    if info is None:
        return result
    companion = Companion.load(bundle.path / COMPANION_FILE, info)
    runtime = load_runtime(bundle)
    mixed, served = (runtime.predict_prepared(texts, threshold=threshold) for threshold in (NEVER, None))
    logs = companion.predict(texts)
    answered = mixing.find_confident(logs, NEVER if info.threshold is None else info.threshold)
    started = time.perf_counter()
    companion.predict(texts[:TIMED_TEXTS])
    companion_s = time.perf_counter() - started
    return result | {
        "companion": accuracy(np.exp(logs), labels),
        "mix": accuracy(mixed, labels),
        "cascade": accuracy(served, labels),
        "mix_to_encoder": difference(mixed, encoder, labels),
        "cascade_to_mix": difference(served, mixed, labels),
        "cascade_to_encoder": difference(served, encoder, labels),
        "mix_ece": expected_calibration_error(mixed, labels),
        "cascade_ece": expected_calibration_error(served, labels),
        "companion_weight": info.companion_weight / info.model_weight,
        "threshold": info.threshold,
        "bound": info.loss,
        "coverage": float(answered.mean()),
        "companion_mb": (bundle.path / COMPANION_FILE).stat().st_size / 1e6,
        "companion_us": companion_s / TIMED_TEXTS * 1e6,
        "within_bound": try_bound(encoder, logs, labels, result["validation_rows"], info.max_loss),
    }


def try_bound(encoder: FloatArray, logs: FloatArray, labels: IntArray, rows: int, max_loss: float) -> float:
    """Return the fraction of resamplings in which the loss of accuracy is at most the accepted one."""
    rng = np.random.default_rng(0)
    encoder_logs = np.log(encoder.clip(np.finfo(np.float32).tiny))
    within = []
    for _ in range(RESAMPLINGS):
        chosen = rng.integers(0, len(labels), rows)
        mix = mixing.fit_mix(encoder_logs[chosen], logs[chosen], labels[chosen].tolist())
        if mix is None:
            within.append(True)
            continue
        mixed = mix.apply(encoder_logs, logs)
        threshold = mixing.choose_cascade_threshold(
            mixed[chosen], logs[chosen], labels[chosen].tolist(), max_loss
        ).threshold
        answered = mixing.find_confident(logs, NEVER if threshold is None else threshold)
        served = np.where(answered[:, None], np.exp(logs), mixed)
        loss = 100 * (accuracy(mixed, labels) - accuracy(served, labels))
        within.append(loss <= max_loss)
    return float(np.mean(within))


def accuracy(probabilities: FloatArray, labels: IntArray) -> float:
    """Return the fraction of rows that are right."""
    return float((probabilities.argmax(axis=1) == labels).mean())


def expected_calibration_error(probabilities: FloatArray, labels: IntArray) -> float:
    """Return the expected calibration error."""
    return calibration_error(reliability(probabilities, labels.tolist()))


def difference(first: FloatArray, second: FloatArray, labels: IntArray) -> list[float]:
    """Return the difference of two accuracies on the same rows and its standard error, in percentage points."""
    rows = 100.0 * ((first.argmax(axis=1) == labels).astype(float) - (second.argmax(axis=1) == labels))
    return [float(rows.mean()), float(rows.std() / np.sqrt(len(rows)))]


def print_tables(results: list[dict[str, Any]]) -> None:
    """Print accuracy, cascade and bound by number of rows: means over seeds."""
    sizes = list(dict.fromkeys(result["rows"] for result in results))

    def mean(size: str, name: str, place: int | None = None) -> float:
        values = [result[name] for result in results if result["rows"] == size and name in result]
        return (
            statistics.fmean(value if place is None else value[place] for value in values) if values else float("nan")
        )

    print(f"\n{cpu.cores()} threads\n\n| rows | encoder | companion | mix | mix - encoder, points | calibration error: "
          "encoder, mix, cascade | companion's weight |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for size in sizes:
        # Not divided by the root of their number: the seeds have most of their held-out rows in common.
        error = mean(size, "mix_to_encoder", 1)
        errors = ", ".join(f"{mean(size, name):.4f}" for name in ("encoder_ece", "mix_ece", "cascade_ece"))
        print(f"| {size} | {mean(size, 'encoder'):.4f} | {mean(size, 'companion'):.4f} | {mean(size, 'mix'):.4f} | "
              f"{mean(size, 'mix_to_encoder', 0):+.2f} ± {1.96 * error:.2f} | {errors} | "
              f"{mean(size, 'companion_weight'):.2f} |")  # fmt: skip
    print("\n| rows | validation rows | texts that the companion answers | cascade - mix, points | cascade - encoder | "
          "bound holds, of 200 | companion: µs a text, MB |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for size in sizes:
        coverages = [result["coverage"] for result in results if result["rows"] == size and "coverage" in result]
        print(f"| {size} | {mean(size, 'validation_rows'):.0f} | {', '.join(f'{value:.0%}' for value in coverages)} | "
              f"{mean(size, 'cascade_to_mix', 0):+.2f} | {mean(size, 'cascade_to_encoder', 0):+.2f} | "
              f"{mean(size, 'within_bound'):.1%} | {mean(size, 'companion_us'):.0f}, "
              f"{mean(size, 'companion_mb'):.1f} |")  # fmt: skip


if __name__ == "__main__":
    main()
