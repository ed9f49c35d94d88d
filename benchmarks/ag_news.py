"""Accuracy and time of the default recipe on AG News rows, next to TF-IDF with logistic regression on the same rows.

Both see the same training rows and are scored on the same test rows, with the same number of threads.

    python benchmarks/ag_news.py ROWS [SAMPLES] [EPOCHS]

ROWS is a file of labelled AG News rows, such as `train.jsonl.gz` with integer labels.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

import newsbert
from newsbert import cpu, data, evaluation


def main() -> None:
    rows = Path(sys.argv[1]).resolve()
    samples = int(sys.argv[2]) if len(sys.argv) > 2 else 15_000
    epochs = float(sys.argv[3]) if len(sys.argv) > 3 else 2.0
    labels = data.AG_NEWS_LABELS
    dataset = data.load(str(rows), labels=labels, samples=samples)
    print(f"{len(dataset.train)} training, {len(dataset.test)} test rows, {cpu.cores()} threads\n")
    print("| model | test accuracy | macro F1 | training s | rows/s in training |\n|---|---|---|---|---|")

    started = time.perf_counter()
    features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    baseline = LogisticRegression(C=10, max_iter=1000)
    baseline.fit(features.fit_transform(dataset.train.texts), dataset.train.labels)
    took = time.perf_counter() - started
    predicted = baseline.predict_proba(features.transform(dataset.test.texts))
    scores = evaluation.score(predicted, dataset.test.labels, labels)
    print(f"| TF-IDF, logistic regression | {scores.accuracy:.4f} | {scores.f1_macro:.4f} | {took:.0f} | "
          f"{len(dataset.train) / took:.0f} |", flush=True)  # fmt: skip

    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as directory:
        os.chdir(directory)
        result = newsbert.train(data=str(rows), labels=labels, samples=samples, epochs=epochs)
    scores = result.scores
    print(f"| MiniLM-L6, newsbert train, {epochs:g} epochs | {scores.accuracy:.4f} | {scores.f1_macro:.4f} | "
          f"{result.seconds:.0f} | {epochs * len(dataset.train) / result.seconds:.0f} |")  # fmt: skip


if __name__ == "__main__":
    main()
