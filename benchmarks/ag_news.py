"""Accuracy, calibration and time of the default recipe on AG News rows, next to the baseline that trainings report.

    python benchmarks/ag_news.py ROWS [SAMPLES] [EPOCHS]

ROWS is a file of labelled AG News rows, such as `train.jsonl.gz` with integer labels. All see the same training rows
and are scored on the same test rows, with the same number of threads: every way of tuning, with as many epochs, but for
the head alone, whose rows are encoded once however many they are: five times as many. The calibration error is that of
the test rows, of the model as it was trained and with the temperature that was fitted on validation rows. Behind it is
what a person has to see so that 95% of the other answers are right, and how many of them are.
"""

import os
import sys
import tempfile
from pathlib import Path

import newsbert
from newsbert.bundle.bundle import Bundle
from newsbert.core import cpu
from newsbert.data.dataset import load_dataset
from newsbert.data.sources import AG_NEWS_LABELS
from newsbert.training import baseline


def main() -> None:
    rows = Path(sys.argv[1]).resolve()
    samples = int(sys.argv[2]) if len(sys.argv) > 2 else 15_000
    epochs = float(sys.argv[3]) if len(sys.argv) > 3 else 2.0
    labels = AG_NEWS_LABELS
    dataset = load_dataset(str(rows), labels=labels, samples=samples)
    print(f"{len(dataset.train)} training, {len(dataset.test)} test rows, {cpu.cores()} threads\n")
    names = ("model", "test accuracy", "macro F1", "calibration error, before and after", "to a person, others right")
    print(f"| {' | '.join(names)} | training s | texts/s |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as directory:
        os.chdir(directory)
        for number, (tune, passes) in enumerate((("full", epochs), ("lora", epochs), ("head", 5 * epochs))):
            result = newsbert.train(data=str(rows), labels=labels, max_train_samples=samples, epochs=passes, tune=tune)
            other, scores, test = result.baseline, result.scores, result.review[0].test
            if number == 0:
                figures = f"{other.scores.accuracy:.4f} | {other.scores.f1_macro:.4f} | | | {other.fit_seconds:.0f}"
                print(f"| {baseline.NAME} | {figures} | {other.texts_per_second:.0f} |")
            before = Bundle.read(result.bundle).contract.metrics["uncalibrated_error"]
            figures = f"{scores.accuracy:.4f} | {scores.f1_macro:.4f} | {before:.4f}, {scores.calibration_error:.4f}"
            right = "none" if test.accuracy is None else f"{test.accuracy:.4f}"
            figures += f" | {test.share:.1%}, {right} | {result.seconds:.0f} | {result.texts_per_second:.0f}"
            print(f"| newsbert train --tune {tune}, {passes:g} epochs | {figures} |", flush=True)


if __name__ == "__main__":
    main()
