"""Profile of labelled rows before training."""

import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from newsbert.core.types import IntArray
from newsbert.data import corpus, row_columns, sources
from newsbert.data.corpus import Corpus
from newsbert.data.lines import Row
from newsbert.data.ragged_array import TextColumn
from newsbert.data.row_columns import NAMES_OF_LABELS, NAMES_OF_TEXTS
from newsbert.data.source import Source
from newsbert.errors import DataError

MAX_LABELS = 200
"""Maximum number of distinct values of a label column."""

_SAMPLED_ROWS, _MEASURED_TEXTS = 1_000, 2_000
_MAX_DISTINCT_VALUES = 20
"""Maximum number of values of a label column whose values are all distinct."""
_ADDRESS = re.compile(r"(https?://|www\.)\S+", re.IGNORECASE)
_MAX_CUT_FRACTION, _MIN_NOTED_FRACTION = 0.05, 0.005
"""Fractions of truncated texts: the maximum for a suggested length, and the minimum for a note."""
_LENGTHS = (128, 192, 256, 384, 512)
"""Candidates for `max_length`: a BERT encoder has at most 512 positions."""
_MIN_CLASS_ROWS, _MAX_CLASS_RATIO = 50, 10


@dataclass(frozen=True)
class DatasetProfile:
    """Profile of labelled rows.

    Attributes:
        data: Name of the data.
        columns: Column names.
        text_column: Text column, if it does not have a usual name.
        label_column: Label column, if it is not `label`.
        rows: Number of rows by split and label; the split is `all` if there are no splits.
        tokens: Percentiles of the tokens per text, such as `p50`, and their maximum; special tokens included.
        max_length: Suggested number of tokens to read of a text.
        truncated_fraction: Fraction of the texts that are longer.
        duplicates: Number of rows with the text of an earlier row.
        conflicting_labels: Number of texts with more than one label.
        leaked: Number of training rows whose text is in validation or test rows, too.
        notes: Notes for the user.
    """

    data: str
    columns: tuple[str, ...]
    text_column: str | None
    label_column: str | None
    rows: dict[str, dict[str, int]]
    tokens: dict[str, int]
    max_length: int
    truncated_fraction: float
    duplicates: int
    conflicting_labels: int
    leaked: int
    notes: tuple[str, ...]


def profile_dataset(
    data: str,
    count_tokens: Callable[[list[str]], list[int]],
    labels: Sequence[str] = (),
    text_column: str | None = None,
    label_column: str | None = None,
) -> DatasetProfile:
    """Return the profile of labelled rows.

    Args:
        data: `sample`, a path, or the name of a Hub data set.
        count_tokens: Function that returns the number of tokens of every text, special tokens included.
        labels: Names of the integer labels 0, 1, …
        text_column: Column of the text; guessed by default if no column has a usual name.
        label_column: Column of the label; guessed by default if no column has a usual name.

    Raises:
        UsageError: If there is no such file.
        DataError: If a row cannot be trained on, or no column can be one of texts or labels.
    """
    sources.check_distinct(labels)
    source = sources.open_source(data)
    columns = source.columns()
    text_column, label_column, guesses = _guess_columns(source, columns, text_column, label_column, data)
    prepared = corpus.prepare(source, labels, text_column, label_column)
    lengths = _measure_lengths(prepared, count_tokens)
    max_length = next((length for length in _LENGTHS if (lengths > length).mean() <= _MAX_CUT_FRACTION), _LENGTHS[-1])
    _, first, text_ids = np.unique(prepared.digests[:, 0], return_index=True, return_inverse=True)
    conflicting_labels = _count_contradicting(text_ids, prepared.labels)
    leaked = _count_leaked(prepared)
    splits = {
        name: indices for name, indices in prepared.splits.items() if name or len(indices) or len(prepared.splits) == 1
    }
    rows = {name or "all": _count_labels(prepared, indices) for name, indices in splits.items()}
    duplicates = len(prepared.labels) - len(first)
    truncated_fraction = float((lengths > max_length).mean())
    return DatasetProfile(
        data,
        tuple(columns),
        text_column,
        label_column,
        rows,
        {f"p{percent}": int(np.percentile(lengths, percent)) for percent in (50, 95, 99)}
        | {"most": int(lengths.max())},
        max_length,
        truncated_fraction,
        duplicates,
        conflicting_labels,
        leaked,
        (*guesses, *prepared.notes, *_write_notes(rows, duplicates, conflicting_labels, leaked, truncated_fraction)),
    )


def _guess_columns(
    source: Source, columns: Sequence[str], text_column: str | None, label_column: str | None, data: str
) -> tuple[str | None, str | None, list[str]]:
    """Return the columns of text and label, guessed if they have no usual names, and a note on the guesses.

    Names take precedence over values. A label column has few distinct values; a text column has long ones that are no
    addresses.

    Raises:
        DataError: If no column can be that of the text or the label.
    """
    guesses = []
    values = _collect_values(source, columns)
    if label_column is None and row_columns.find(columns, "label") is None and not source.first_id:
        split = row_columns.find(columns, "split")
        others = {name: column_values for name, column_values in values.items() if name not in {text_column, split}}
        guessed = _guess_label(others)
        if guessed is not None:
            label_column = guessed
            guesses.append(f"the label is in {label_column!r}")
    label = source.label_column(columns, label_column, data)
    if text_column is None and not any(row_columns.find(columns, name) for name in ("text", "description")):
        text_column = _guess_text(
            {name: column_values for name, column_values in values.items() if name != label}, columns
        )
        guesses.append(f"the text is in {text_column!r}")
    return text_column, label_column, [f"guessed: {' and '.join(guesses)}"] if guesses else []


def _guess_label(values: dict[str, list[object]]) -> str | None:
    counts = {name: len(set(map(str, column_values))) for name, column_values in values.items()}
    candidates = [
        name for name, count in counts.items() if 1 < count <= MAX_LABELS and not _are_addresses(values[name])
    ]
    texts = [
        name for name in candidates if len(values[name]) > _MAX_DISTINCT_VALUES and counts[name] == len(values[name])
    ]
    candidates = [name for name in candidates if name not in texts]
    if len(values) < 2 or not candidates:
        return None
    named = row_columns.find_named_like(candidates, NAMES_OF_LABELS)
    return named or min(candidates, key=lambda name: counts[name])


def _guess_text(values: dict[str, list[object]], columns: Sequence[str]) -> str:
    candidates = {name: column_values for name, column_values in values.items() if _are_texts(column_values)}
    if not candidates:
        raise DataError(
            f"no column holds texts; the columns are: {row_columns.show_names(columns)}", "name it with --text-column"
        )
    named = row_columns.find_named_like(list(candidates), NAMES_OF_TEXTS)
    means = {
        name: float(np.mean([len(str(value)) for value in column_values])) for name, column_values in candidates.items()
    }
    return named or max(means, key=lambda name: means[name])


def _are_texts(values: Sequence[object]) -> bool:
    """Return whether the values are texts: strings, some with letters, and mostly no addresses.

    The letters matter because numbers in csv files are strings, too.
    """
    return (
        bool(values)
        and all(isinstance(value, str) for value in values)
        and any(map(str.isalpha, "".join(map(str, values))))
        and not _are_addresses(values)
    )


def _are_addresses(values: Sequence[object]) -> bool:
    return sum(_ADDRESS.fullmatch(str(value).strip()) is not None for value in values) * 2 > len(values)


def _collect_values(source: Source, columns: Sequence[str]) -> dict[str, list[object]]:
    """Return the values by column of sampled rows of all splits, without missing values."""
    rows = [row for split in source.splits.values() for row in _sample_rows(split.rows())]
    return {name: [row[name] for row in rows if row.get(name) is not None and row[name] != ""] for name in columns}


def _sample_rows(rows: Iterable[Row]) -> list[Row]:
    """Return a uniform sample of the rows, as files are often sorted by label.

    Source: Vitter, "Random sampling with a reservoir" (1985), algorithm R.
    """
    rng = random.Random(0)  # noqa: S311 - it keeps no secret
    sample: list[Row] = []
    for number, row in enumerate(rows):
        if number < _SAMPLED_ROWS:
            sample.append(row)
        elif (index := rng.randrange(number + 1)) < _SAMPLED_ROWS:
            sample[index] = row
    return sample


def _measure_lengths(prepared: Corpus, count_tokens: Callable[[list[str]], list[int]]) -> IntArray:
    """Return the numbers of tokens of some texts, evenly spaced in the corpus."""
    if not len(prepared.labels):
        raise DataError("there are no rows", "give some labelled rows for every class")
    indices = np.linspace(0, len(prepared.labels) - 1, min(_MEASURED_TEXTS, len(prepared.labels))).astype(np.int64)
    return np.array(count_tokens(list(TextColumn(prepared.texts, indices))), np.int64)


def _count_contradicting(text_ids: IntArray, labels: corpus.Labels) -> int:
    """Return the number of texts with more than one label."""
    pairs = np.unique(np.stack([text_ids.ravel(), labels.astype(np.int64)]), axis=1)
    return int((np.bincount(pairs[0]) > 1).sum())


def _count_leaked(prepared: Corpus) -> int:
    training = prepared.splits.get("train")
    held_out = [indices for name, indices in prepared.splits.items() if name in {"validation", "test"}]
    if training is None or not held_out:
        return 0
    return int(np.isin(prepared.digests[training, 0], prepared.digests[np.concatenate(held_out), 0]).sum())


def _count_labels(prepared: Corpus, places: IntArray) -> dict[str, int]:
    counts = np.bincount(prepared.labels[places], minlength=len(prepared.label_names))
    return dict(zip(prepared.label_names, counts.tolist(), strict=True))


def _write_notes(
    rows: dict[str, dict[str, int]], duplicates: int, conflicting_labels: int, leaked: int, truncated_fraction: float
) -> list[str]:
    notes = []
    counts = rows.get("train") or next(iter(rows.values()))
    minor, major = (pick(counts, key=lambda name: counts[name]) for pick in (min, max))
    if counts[minor] < _MIN_CLASS_ROWS:
        notes.append(f"{minor!r} has {_format_count(counts[minor], 'row')}: label some more, some hundreds pay most")
    if counts[major] > _MAX_CLASS_RATIO * max(1, counts[minor]):
        notes.append(
            f"{major!r} has {counts[major]} rows and {minor!r} {counts[minor]}: look at macro F1, not accuracy"
        )
    if conflicting_labels:
        notes.append(f"{_format_count(conflicting_labels, 'text')} with more than one label: training takes the first")
    if duplicates:
        notes.append(f"{_format_count(duplicates, 'row')} with the text of another row")
    if leaked:
        notes.append(
            f"{_format_count(leaked, 'training row')} also among validation or test rows: training leaves them out"
        )
    if truncated_fraction >= _MIN_NOTED_FRACTION:
        notes.append(f"{truncated_fraction:.1%} of the texts are truncated")
    return notes


def _format_count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
