"""How often a threshold for reviews keeps its promise: `python benchmarks/review.py`.

Rows are drawn as a calibrated model has them: a score, and an answer that is right with that probability. On few of
them, as on validation rows, a threshold is chosen; on many others it is counted what it keeps. Next to the margin of
one standard error, which newsbert demands, stand none and more.
"""

import argparse

import numpy as np

from newsbert.core.types import FloatArray
from newsbert.evaluation import review_threshold

LABELS = 4
MARGINS = {"none": 0.0, "one standard error (newsbert)": review_threshold.STANDARD_ERRORS, "1.64 standard errors": 1.64}


def draw(rng: np.random.Generator, rows: int) -> tuple[FloatArray, list[int]]:
    """Probabilities `(rows, LABELS)` and true ids; about 93% of the answers are right."""
    scores = 0.25 + 0.75 * rng.beta(5, 0.5, rows)
    probabilities = np.repeat(((1 - scores) / (LABELS - 1))[:, None], LABELS, axis=1)
    probabilities[:, 0] = scores
    return probabilities.astype(np.float32), np.where(rng.random(rows) < scores, 0, 1).tolist()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trainings", type=int, default=400)
    parser.add_argument("--precision", type=float, default=0.95)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    others = draw(rng, 200_000)
    print(f"wanted: {given.precision:g}; {given.trainings} trainings each\n")
    print("| validation rows | margin | trainings that keep it | to a person, mean | everything to a person |")
    print("|---|---|---|---|---|")
    for rows in (44, 200, 500, 2000):
        drawn = [draw(rng, rows) for _ in range(given.trainings)]
        for name, margin in MARGINS.items():
            below = [review_threshold.choose_threshold(*each, given.precision, margin) for each in drawn]
            found = [review_threshold.review_stats(*others, each) for each in below]
            kept = np.mean([each.accuracy is None or each.accuracy >= given.precision for each in found])
            share, everything = (
                np.mean([each.share for each in found]),
                np.mean([each == review_threshold.ALL for each in below]),
            )
            print(f"| {rows} | {name} | {kept:.0%} | {share:.0%} | {everything:.0%} |")


if __name__ == "__main__":
    main()
