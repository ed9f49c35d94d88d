"""Compare classifiers that could be a companion: accuracy by number of labelled rows, speed and size.

    python benchmarks/companions.py ROWS [--rows 512 2000 15000 all] [--seeds 1 2 3] [--results FILE]

ROWS is a file of labelled AG News rows, such as `train.jsonl.gz` with integer labels. All classifiers are fitted on the
same rows, the same number of every class. They are scored on the test rows that `newsbert train` splits off ROWS. They
take turns, and predict in one thread:

- hashed words and pairs, which `newsbert train` puts into a bundle
- TF-IDF of words and pairs with logistic regression, the baseline of `newsbert train`
- NB-SVM of words and pairs: https://aclanthology.org/P12-2018/ (Wang and Manning), with the authors' settings
- static vectors: every token of the vocabulary is read by the encoder alone, and a text is the weighted mean of its
  tokens' vectors, with logistic regression: https://github.com/MinishLab/model2vec

The size is that of the pickled classifier, and of the weights' file for the first, which needs no pickle. The script
appends its measurements to `--results`, and does not repeat those that are there.
"""

import argparse
import itertools
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits
from transformers import AutoModel

import recorded
from learning_curve import draw
from newsbert.core import environment
from newsbert.core.types import IntArray
from newsbert.data.dataset import Split, load_dataset
from newsbert.data.sources import AG_NEWS_LABELS
from newsbert.inference.tokenization import SequenceTokenizer, pad
from newsbert.training import base_model
from newsbert.training.baseline import BaselineClassifier
from newsbert.training.companion import Examples, fit
from newsbert.training.tokenizer import prepare_tokenizer

RESULTS = Path(__file__).parent / "results" / "companions.jsonl"
ROUNDS = 3
MAX_LENGTH = 128
STATIC_SIZE = 256
"""Size of a static vector, as model2vec has it."""

Predict = Callable[[Sequence[str]], IntArray]
"""Function that returns the label ids of texts."""

Fit = Callable[[Split, int], tuple[Predict, int]]
"""Function of rows and a seed that returns a fitted classifier and its size in bytes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="ROWS")
    parser.add_argument("--rows", nargs="+", default=["512", "2000", "15000", "all"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    environment.tokenize_in_calling_thread()
    dataset = load_dataset(str(arguments.data), labels=AG_NEWS_LABELS)
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as directory, threadpool_limits(1):
        vectors = StaticVectors(Path(directory))
        kinds: dict[str, Fit] = {
            "hashed words and pairs (newsbert)": fit_hashed,
            "TF-IDF, logistic regression": fit_baseline,
            "NB-SVM": fit_nbsvm,
            "static vectors, logistic regression": vectors.fit,
        }
        for size, seed in recorded.iterate_missing(arguments.results, arguments.rows, arguments.seeds):
            rows = dataset.train if size == "all" else draw(dataset.train, int(size), seed)
            results = measure(kinds, rows, dataset.test, seed)
            recorded.add(arguments.results, *({"rows": size, "seed": seed} | result for result in results))
    print_table(recorded.read(arguments.results))


def measure(kinds: dict[str, Fit], train: Split, test: Split, seed: int) -> list[dict[str, Any]]:
    """Fit every kind on the same rows, and measure it; the kinds take turns with their predictions."""
    fitted = {name: fit_kind(train, seed) for name, fit_kind in kinds.items()}
    texts, seconds = list(test.texts), {name: list[float]() for name in kinds}
    accuracy = {}
    for _ in range(ROUNDS):
        for name, (predict, _) in fitted.items():
            started = time.perf_counter()
            labels = predict(texts)
            seconds[name].append(time.perf_counter() - started)
            accuracy[name] = float((labels == test.labels).mean())
    return [
        {"kind": name, "accuracy": accuracy[name], "megabytes": size / 1e6,
         "texts_per_second": len(texts) / statistics.median(seconds[name])}
        for name, (_, size) in fitted.items()
    ]  # fmt: skip


def fit_hashed(train: Split, seed: int) -> tuple[Predict, int]:
    """Fit newsbert's companion."""
    companion = fit(Examples(train.texts, train.labels, len(AG_NEWS_LABELS)), seed)
    return lambda texts: companion.predict(texts).argmax(axis=1), companion.size_bytes


def fit_baseline(train: Split, seed: int) -> tuple[Predict, int]:
    """Fit newsbert's baseline."""
    classifier = BaselineClassifier(train, seed)
    del classifier.rows, classifier.labels, classifier.features  # of the training rows: predictions do not need them
    return lambda texts: classifier.predict(texts, len(AG_NEWS_LABELS)).argmax(axis=1), len(pickle.dumps(classifier))


def fit_nbsvm(train: Split, seed: int) -> tuple[Predict, int]:
    """Fit an NB-SVM: one against the rest, on binary features times their log-count ratios."""
    vectorizer = CountVectorizer(ngram_range=(1, 2), binary=True, dtype=np.float32)
    features: Any = vectorizer.fit_transform(train.texts)
    weights, biases = [], []
    for label in range(len(AG_NEWS_LABELS)):
        is_label = np.asarray(train.labels) == label
        inside, outside = (1 + np.asarray(features[rows].sum(axis=0)).ravel() for rows in (is_label, ~is_label))
        ratio = np.log((inside / inside.sum()) / (outside / outside.sum()))
        svm = LinearSVC(C=1.0, random_state=seed).fit(features @ sparse.diags(ratio), is_label)
        # Interpolated with the mean weight, as in the paper.
        mean = np.abs(svm.coef_[0]).mean()
        weights.append(ratio * (0.75 * mean + 0.25 * svm.coef_[0]))
        biases.append(svm.intercept_[0])
    matrix, bias = np.array(weights, np.float32).T, np.array(biases)
    return (
        lambda texts: np.asarray(vectorizer.transform(texts) @ matrix + bias).argmax(axis=1),
        len(pickle.dumps((vectorizer, matrix, bias))),
    )


class StaticVectors:
    """Vectors of the tokens of the bundled encoder, each read alone, and logistic regression on their means.

    Args:
        directory: A directory for the tokenizer's files.
    """

    def __init__(self, directory: Path) -> None:
        base = base_model.find("minilm")
        self._tokenizer: SequenceTokenizer = prepare_tokenizer(base, directory, MAX_LENGTH)
        encoder = AutoModel.from_pretrained(str(base.path)).eval()
        begin, end = self._tokenizer.encode([""])[0]
        count = encoder.get_input_embeddings().num_embeddings
        rows = []
        with torch.inference_mode():
            for first in range(0, count, 1024):
                ids = [[begin, token, end] for token in range(first, min(first + 1024, count))]
                input_ids, mask = map(torch.from_numpy, pad(ids, self._tokenizer.pad_id))
                rows.append(encoder(input_ids, attention_mask=mask).last_hidden_state.mean(dim=1).numpy())
        vectors = PCA(STATIC_SIZE, random_state=0).fit_transform(np.concatenate(rows))
        # A vocabulary is sorted by frequency: the rank stands for it, as in Zipf's law.
        self._table = (vectors * np.log(1 + np.arange(count))[:, None]).astype(np.float32)

    def encode(self, texts: Sequence[str]) -> Any:
        """Return the vectors of texts, of length 1."""
        ids = [row[1:-1] or [self._tokenizer.pad_id] for row in self._tokenizer.encode(texts)]
        counts = np.array([len(row) for row in ids])
        tokens = np.fromiter(itertools.chain.from_iterable(ids), np.int64, counts.sum())
        means = np.add.reduceat(self._table[tokens], np.cumsum(counts) - counts, axis=0) / counts[:, None]
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    def fit(self, train: Split, seed: int) -> tuple[Predict, int]:
        """Fit the logistic regression."""
        classifier = LogisticRegression(C=10, max_iter=1000, random_state=seed).fit(
            self.encode(train.texts), train.labels
        )
        size = self._table.nbytes + len(pickle.dumps(classifier))
        return lambda texts: classifier.predict(self.encode(texts)), size


def print_table(results: list[dict[str, Any]]) -> None:
    """Print a row for every kind: mean accuracy by number of rows; speed and size after the most rows."""
    sizes = list(dict.fromkeys(result["rows"] for result in results))
    largest = [result for result in results if result["rows"] == sizes[-1]]
    first = statistics.median(result["texts_per_second"] for result in largest if result["kind"] == results[0]["kind"])
    print("\n| kind | " + " | ".join(f"{size} rows" for size in sizes)
          + " | texts/s | ratio | MB |\n|" + "---|" * (len(sizes) + 4))  # fmt: skip
    for kind in dict.fromkeys(result["kind"] for result in results):
        cells = [
            f"{statistics.fmean(r['accuracy'] for r in results if (r['rows'], r['kind']) == (size, kind)):.4f}"
            for size in sizes
        ]
        own = [result for result in largest if result["kind"] == kind]
        speed, size_mb = (
            statistics.median(result[name] for result in own) for name in ("texts_per_second", "megabytes")
        )
        print(f"| {kind} | {' | '.join(cells)} | {speed:,.0f} | {speed / first:.2f} | {size_mb:.1f} |")


if __name__ == "__main__":
    main()
