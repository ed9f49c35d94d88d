"""Labelled rows that are ready for training: divided into splits and hashed."""

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from newsbert.core.types import IntArray
from newsbert.data import corpus as corpora
from newsbert.data import readers as row_files
from newsbert.data import row_columns, sources
from newsbert.data.corpus import Corpus, Labels
from newsbert.data.ragged_array import TextColumn
from newsbert.data.sources import AG_NEWS_LABELS, SAMPLE
from newsbert.data.text import CLEANING_RULES, NewsItem, has_text, make_item, preprocess
from newsbert.errors import DataError, UsageError

__all__ = ["AG_NEWS_LABELS", "SAMPLE", "Dataset", "Split", "load_dataset", "read_items"]

TEST_FRACTION = VALIDATION_FRACTION = 0.1
MAX_TEST_ROWS = MAX_VALIDATION_ROWS = 5_000
"""Maximum numbers of drawn rows. They resolve scores half a point apart."""

MAX_SCORED_ROWS = 2_000
"""Maximum number of validation rows that are scored during training: more would only slow it down."""


@dataclass(frozen=True, eq=False)
class Split:
    """Prepared sequences and their label ids, row by row.

    Attributes:
        texts: Sequences, on disk.
        labels: Label ids, in memory.
        digest: SHA-256 over the label ids and the digests of the texts.
    """

    texts: Sequence[str]
    labels: Labels
    digest: str

    def __len__(self) -> int:
        return len(self.texts)

    def sample_evenly(self, most: int) -> "Split":
        """Return at most `most` of the rows, evenly spaced: files are often sorted by label."""
        if len(self) <= most:
            return self
        rows = np.linspace(0, len(self) - 1, most).astype(np.int64)
        digest = hashlib.sha256(f"{self.digest} {most}".encode()).hexdigest()
        return Split([self.texts[row] for row in rows.tolist()], self.labels[rows], digest)


@dataclass(frozen=True)
class Dataset:
    """Training, validation and test rows of a model.

    Attributes:
        name: Name of the data, such as its path.
        label_names: Label names in id order.
        digest: SHA-256 over label names and the digests of all splits, in order.
        notes: Notes for the user, such as on rows left out.
        unlabelled: More prepared texts, without labels.
    """

    name: str
    label_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    digest: str
    notes: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()

    @functools.cached_property
    def scored(self) -> Split:
        """The validation rows that are scored during training."""
        return self.validation.sample_evenly(MAX_SCORED_ROWS)

    def add_unlabelled(self, file: Path) -> "Dataset":
        """Return the data set with the texts of a file, but those of validation and test rows.

        Raises:
            DataError: If the file cannot be read, or has no texts.
        """
        held_out = {text for split in (self.validation, self.test) for text in split.texts}
        texts = dict.fromkeys(preprocess(item, CLEANING_RULES) for item in read_items(file, CLEANING_RULES))
        unlabelled = tuple(text for text in texts if text not in held_out)
        digest = hashlib.sha256(json.dumps([self.digest, unlabelled]).encode()).hexdigest()
        return replace(self, unlabelled=unlabelled, digest=digest)


def load_dataset(
    data: str = SAMPLE,
    *,
    labels: Sequence[str] = (),
    text_column: str | None = None,
    label_column: str | None = None,
    samples: int | None = None,
    seed: int = 42,
) -> Dataset:
    """Read, clean, label and split rows.

    Args:
        data: `sample`, a path, or the name of a Hub data set.
        labels: Names of the integer labels 0, 1, …
        text_column: Column of the text, if it is not `text` (or `title` with `text` or `description`).
        label_column: Column of the label, if it is not `label`.
        samples: Maximum number of training rows; validation and test rows are additional.
        seed: Seed of the split and of the choice of samples.

    Raises:
        UsageError: If there is no such file or the arguments are inconsistent.
        DataError: If the rows cannot be trained on; the message names the row or the class.
    """
    sources.check_distinct(labels)
    corpus = corpora.prepare(sources.open_source(data), labels, text_column, label_column)
    notes = list(corpus.notes)
    names = corpus.label_names
    splitter = _Splitter(corpus, np.random.default_rng(seed), notes)
    train, validation, test = splitter.three_splits()
    splitter.check_classes(train)
    if samples is not None:
        train = splitter.sample(train, samples)
    splits = _build_split(corpus, train), _build_split(corpus, validation), _build_split(corpus, test)
    digest = hashlib.sha256(json.dumps([names, *(split.digest for split in splits)]).encode()).hexdigest()
    return Dataset(data, names, *splits, digest, tuple(notes))


def read_items(file: Path | None, rules: Sequence[str]) -> list[NewsItem]:
    """Return the texts of a file, with or without labels, or of the bundled sample; they are not cleaned.

    Args:
        file: The file; `None` for the sample.
        rules: Cleaning rules of the model that reads the texts; rows without text by these rules are left out.

    Raises:
        DataError: If the file cannot be read, or has no texts.
    """
    with resources.as_file(resources.files("newsbert") / "data/sample.csv") as sample:
        rows = row_files.read(file or sample)
    title, column = row_columns.find_texts(row_files.columns(rows), None, str(file or ""))
    items = [make_item(*part) for part in corpora.parts(rows, title, column)]
    items = [item for item in items if has_text(item, rules)]
    if not items:
        raise DataError(f"{file} has no texts", "give a file with a column `text`")
    return items


class _Splitter:
    """Splitter of a corpus; rows are indices into the corpus."""

    def __init__(self, corpus: Corpus, rng: np.random.Generator, notes: list[str]) -> None:
        self._corpus, self._rng, self._notes = corpus, rng, notes
        self._num_labels = len(corpus.label_names)
        self._digests: NDArray[np.uint64] = corpus.digests[:, 0]  # 64 bits suffice to distinguish texts

    def three_splits(self) -> tuple[IntArray, IntArray, IntArray]:
        """Return the rows for training, validation and test.

        Existing splits are used as they are. Missing ones are drawn from the training rows, stratified by class.
        """
        existing = {name: rows for name, rows in self._corpus.splits.items() if name and len(rows)}
        pool = existing.pop("train", None)
        if pool is None:
            pool = self._corpus.splits.get("", np.empty(0, np.int64))
        missing = [name for name in ("test", "validation") if name not in existing]
        if missing:
            pool = self._drop_duplicates(pool)
            self.check_classes(pool, least=1 + len(missing))
        drawn = dict(existing)
        for name in missing:
            fraction, max_rows = (
                (TEST_FRACTION, MAX_TEST_ROWS) if name == "test" else (VALIDATION_FRACTION, MAX_VALIDATION_ROWS)
            )
            drawn[name], pool = self._draw(pool, min(round(fraction * len(pool)), max_rows))
        held_out = np.concatenate([drawn["validation"], drawn["test"]])
        leaked = np.isin(self._digests[pool], self._digests[held_out])
        if leaked.any():
            self._notes.append(f"{leaked.sum()} training rows stood in validation or test rows too and were left out")
            pool = pool[~leaked]
        return pool, drawn["validation"], drawn["test"]

    def check_classes(self, rows: IntArray, least: int = 1) -> None:
        """Check that there are several classes with at least `least` rows per class.

        Raises:
            DataError: If there are not; the message names the class.
        """
        names = self._corpus.label_names
        counts = np.bincount(self._corpus.labels[rows], minlength=self._num_labels)
        if not len(rows):
            raise DataError("there are no rows to train on", "give some labelled rows for every class")
        if (counts > 0).sum() == 1:
            only = names[int(counts.argmax())]
            raise DataError(
                f"all {len(rows)} rows have the label {only!r:.80}", "a classifier needs two classes or more"
            )
        for name, count in zip(names, counts.tolist(), strict=True):
            if count < least:
                amount = {0: "no row", 1: "only one row"}.get(count, f"only {count} rows")
                raise DataError(
                    f"the class {name!r:.80} has {amount}, and training needs {least}",
                    "add rows for it or leave the class out; every class needs a row to train, validate and test on",
                )

    def sample(self, rows: IntArray, samples: int) -> IntArray:
        """Return at most `samples` of the rows, stratified by class.

        Raises:
            UsageError: If there are fewer samples than classes.
        """
        if samples < self._num_labels:
            raise UsageError(
                f"--max-train-samples {samples} is fewer than the {self._num_labels} classes", "ask for more rows"
            )
        if samples >= len(rows):
            if samples > len(rows):
                self._notes.append(
                    f"--max-train-samples {samples} is more than the {len(rows)} training rows: all are used"
                )
            return rows
        return self._draw(rows, samples)[0]

    def _drop_duplicates(self, rows: IntArray) -> IntArray:
        """Return the first row of every text, so that no text is on both sides of a split."""
        _, first = np.unique(self._digests[rows], return_index=True)
        if len(first) < len(rows):
            self._notes.append(f"{len(rows) - len(first)} rows repeated another row's text and were left out")
        return rows[np.sort(first)]

    def _draw(self, rows: IntArray, count: int) -> tuple[IntArray, IntArray]:
        """Draw rows, stratified by class with at least one row per class; return them and the rest."""
        labels = self._corpus.labels[rows]
        targets = count * np.bincount(labels, minlength=self._num_labels) / len(labels)
        quotas = np.maximum(1, np.floor(targets)).astype(int)
        while quotas.sum() < count:
            quotas[np.argmax(targets - quotas)] += 1
        while quotas.sum() > max(count, self._num_labels):
            quotas[np.argmax(np.where(quotas > 1, quotas - targets, -np.inf))] -= 1
        chosen = np.zeros(len(rows), bool)
        for label, quota in enumerate(quotas):
            chosen[self._rng.permutation(np.flatnonzero(labels == label))[:quota]] = True
        return rows[chosen], rows[~chosen]


def _build_split(corpus: Corpus, rows: IntArray) -> Split:
    labels = np.asarray(corpus.labels[rows])
    digest = hashlib.sha256(labels.astype("<i4").tobytes())
    digest.update(corpus.digests[rows].astype("<u8").tobytes())
    return Split(TextColumn(corpus.texts, rows), labels, digest.hexdigest())
