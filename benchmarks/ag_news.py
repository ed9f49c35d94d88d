"""Measure accuracy, calibration and time of the fine-tuning methods on AG News rows, next to the baseline.

    python benchmarks/ag_news.py ROWS [--max-train-samples 15000] [--epochs 2]

ROWS is a file of labelled AG News rows, such as `train.jsonl.gz` with integer labels. All methods have the same
training rows, test rows and number of threads. `--tune head` trains for five times as many epochs, because it encodes
the rows only once. The calibration error is that of the test rows, without the temperature that was fitted on
validation rows, and with it. The next column is the fraction of answers that is flagged for review so that 95% of the
others are right, and the accuracy of these others.
"""

import argparse
import os
import tempfile
from pathlib import Path

import newsbert
from newsbert.bundle.bundle import Bundle
from newsbert.core import cpu
from newsbert.data.dataset import load_dataset
from newsbert.data.sources import AG_NEWS_LABELS
from newsbert.training import baseline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--max-train-samples", type=int, default=15_000)
    parser.add_argument("--epochs", type=float, default=2.0)
    arguments = parser.parse_args()
    rows, samples, epochs = arguments.rows.resolve(), arguments.max_train_samples, arguments.epochs
    labels = AG_NEWS_LABELS
    dataset = load_dataset(str(rows), labels=labels, samples=samples)
    print(f"{len(dataset.train)} training, {len(dataset.test)} test rows, {cpu.cores()} threads\n")
    names = (
        "model",
        "test accuracy",
        "macro F1",
        "calibration error, before and after",
        "flagged for review, accuracy of the others",
    )
    print(f"| {' | '.join(names)} | training s | texts/s |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as directory:
        os.chdir(directory)
        for number, (tune, tune_epochs) in enumerate((("full", epochs), ("lora", epochs), ("head", 5 * epochs))):
            result = newsbert.train(
                data=str(rows), labels=labels, max_train_samples=samples, epochs=tune_epochs, tune=tune
            )
            other, scores, test = result.baseline, result.scores, result.review[0].test
            if number == 0:
                figures = f"{other.scores.accuracy:.4f} | {other.scores.f1_macro:.4f} | | | {other.fit_seconds:.0f}"
                print(f"| {baseline.NAME} | {figures} | {other.texts_per_second:.0f} |")
            before = Bundle.read(result.bundle).contract.metrics["uncalibrated_error"]
            figures = f"{scores.accuracy:.4f} | {scores.f1_macro:.4f} | {before:.4f}, {scores.calibration_error:.4f}"
            right = "none" if test.accuracy is None else f"{test.accuracy:.4f}"
            figures += f" | {test.review_rate:.1%}, {right} | {result.seconds:.0f} | {result.texts_per_second:.0f}"
            print(f"| newsbert train --tune {tune}, {tune_epochs:g} epochs | {figures} |", flush=True)


if __name__ == "__main__":
    main()
