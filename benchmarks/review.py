"""Measure how often a confidence threshold for review reaches its target accuracy: `python benchmarks/review.py`.

The script draws rows as a calibrated model scores them: a score, and an answer that is right with that probability. It
chooses a threshold on a few rows, as on validation rows, and tests it on many others. It compares the margin of one
standard error, which newsbert uses, with no margin and with a larger one.
"""

import argparse

import numpy as np

from newsbert.core.types import FloatArray
from newsbert.evaluation import review_threshold

LABELS = 4
MARGINS = {"none": 0.0, "one standard error (newsbert)": review_threshold.STANDARD_ERRORS, "1.64 standard errors": 1.64}


def draw(rng: np.random.Generator, rows: int) -> tuple[FloatArray, list[int]]:
    """Return probabilities `(rows, LABELS)` and true ids; about 93% of the answers are right."""
    scores = 0.25 + 0.75 * rng.beta(5, 0.5, rows)
    probabilities = np.repeat(((1 - scores) / (LABELS - 1))[:, None], LABELS, axis=1)
    probabilities[:, 0] = scores
    return probabilities.astype(np.float32), np.where(rng.random(rows) < scores, 0, 1).tolist()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trainings", type=int, default=400)
    parser.add_argument("--target-accuracy", type=float, default=0.95)
    arguments = parser.parse_args()
    target = arguments.target_accuracy
    rng = np.random.default_rng(0)
    others = draw(rng, 200_000)
    print(f"target accuracy: {target:g}; {arguments.trainings} trainings per line\n")
    print("| validation rows | margin | trainings that reach it | flagged for review, mean "
          "| trainings that flag everything |\n|---|---|---|---|---|")  # fmt: skip
    for rows in (44, 200, 500, 2000):
        samples = [draw(rng, rows) for _ in range(arguments.trainings)]
        for name, margin in MARGINS.items():
            thresholds = [review_threshold.choose_threshold(*sample, target, margin) for sample in samples]
            tests = [review_threshold.review_stats(*others, threshold) for threshold in thresholds]
            reached = np.mean([test.accuracy is None or test.accuracy >= target for test in tests])
            flagged = np.mean([test.review_rate for test in tests])
            all_flagged = np.mean([threshold == review_threshold.ALL for threshold in thresholds])
            print(f"| {rows} | {name} | {reached:.0%} | {flagged:.0%} | {all_flagged:.0%} |")


if __name__ == "__main__":
    main()
