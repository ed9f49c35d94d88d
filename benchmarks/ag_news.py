"""Accuracy and time of the default recipe on AG News rows, next to the baseline that every training reports.

Both see the same training rows and are scored on the same test rows, with the same number of threads.

    python benchmarks/ag_news.py ROWS [SAMPLES] [EPOCHS]

ROWS is a file of labelled AG News rows, such as `train.jsonl.gz` with integer labels.
"""

import os
import sys
import tempfile
from pathlib import Path

import newsbert
from newsbert import baseline, cpu, data


def main() -> None:
    rows = Path(sys.argv[1]).resolve()
    samples = int(sys.argv[2]) if len(sys.argv) > 2 else 15_000
    epochs = float(sys.argv[3]) if len(sys.argv) > 3 else 2.0
    labels = data.AG_NEWS_LABELS
    dataset = data.load(str(rows), labels=labels, samples=samples)
    print(f"{len(dataset.train)} training, {len(dataset.test)} test rows, {cpu.cores()} threads\n")
    print("| model | test accuracy | macro F1 | training s | rows/s in training | texts/s |\n|---|---|---|---|---|---|")

    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as directory:
        os.chdir(directory)
        result = newsbert.train(data=str(rows), labels=labels, samples=samples, epochs=epochs)
    other = result.baseline
    for name, scores, trained_rows, seconds, speed in (
        (baseline.NAME, other.scores, other.rows, other.fit_seconds, other.texts_per_second),
        (f"MiniLM-L6, newsbert train, {epochs:g} epochs", result.scores, epochs * len(dataset.train), result.seconds,
         result.texts_per_second),
    ):  # fmt: skip
        figures = f"{scores.accuracy:.4f} | {scores.f1_macro:.4f} | {seconds:.0f} | {trained_rows / seconds:.0f}"
        print(f"| {name} | {figures} | {speed:.0f} |")


if __name__ == "__main__":
    main()
