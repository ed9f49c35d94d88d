"""Labelled rows, ready to train on: cleaned, with a label map, split and hashed.

Rows come from the bundled sample, a file, a directory of files named after their splits, or a data set in the layout
of the Hugging Face Hub.
"""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from newsbert import rows as row_files
from newsbert.errors import DataError, MissingExtraError, UsageError, first_line
from newsbert.rows import AG_NEWS_COLUMNS, Row
from newsbert.text import CLEANING_RULES, NewsItem, clean, join

AG_NEWS_LABELS = ("World", "Sports", "Business", "Sci/Tech")
SAMPLE = "sample"
TEST_SHARE = VALIDATION_SHARE = 0.1
MAX_TEST_ROWS, MAX_VALIDATION_ROWS = 5_000, 2_000
"""Enough to tell scores half a point apart; more would only make every evaluation slower."""

_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_ID = re.compile(r"0|-?[1-9][0-9]{0,17}")


@dataclass(frozen=True)
class Split:
    """Prepared sequences and their label ids, row by row."""

    texts: list[str]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Dataset:
    """What a model is trained and tested on.

    Attributes:
        name: Where the rows came from.
        label_names: Names in the order of their ids.
        digest: SHA-256 over label names and the rows of all splits, in order.
        notes: What the user should know: rows left out, samples not to be had.
    """

    name: str
    label_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    digest: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelledRows:
    """What a finished model is scored on.

    Attributes:
        items: Texts or title/text objects as they were found: every model cleans them by its own rules.
        labels: Their label ids, which are the model's.
        split: The split that they are of, where the data set has several; else nothing.
        digest: SHA-256 over items and label names, in order.
        notes: What the user should know: rows left out, labels that were taken for others.
    """

    items: list[NewsItem]
    labels: list[int]
    split: str
    digest: str
    notes: tuple[str, ...] = ()


@dataclass
class _Source:
    """Rows as they were found, by split; `rows` without splits are under `""`."""

    splits: dict[str, list[Row]]
    label_names: tuple[str, ...] | None = None
    first_id: int = 0
    notes: list[str] = field(default_factory=list)


def load(
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
        samples: Training rows to use at most; validation and test rows come on top.
        seed: Seed of the split and of the choice of samples.

    Raises:
        UsageError: If there is no such file or the arguments do not fit each other.
        DataError: If the rows cannot be trained on; the message names the row or the class.
    """
    _check_distinct(labels)
    source = _open(data, label_column)
    ids, names = _label_ids(source, labels, label_column)
    splits = {}
    for name, rows in source.splits.items():
        texts = _texts(rows, text_column)
        kept = [index for index, text in enumerate(texts) if text and ids[name][index] >= 0]
        if len(kept) < len(rows):
            source.notes.append(f"{len(rows) - len(kept)} rows without text or label were left out")
        splits[name] = Split([texts[index] for index in kept], [ids[name][index] for index in kept])
    rng = np.random.default_rng(seed)
    train, validation, test = _three_splits(splits, names, rng, source.notes)
    _check_classes(train, names)
    if samples is not None:
        train = _sample(train, samples, len(names), rng, source.notes)
    digest = _digest(names, (train, validation, test))
    return Dataset(data, names, train, validation, test, digest, tuple(source.notes))


def labelled(
    data: str,
    label_names: Sequence[str],
    *,
    labels: Sequence[str] = (),
    text_column: str | None = None,
    label_column: str | None = None,
) -> LabelledRows:
    """Read all labelled rows, to score a model that has these labels; of a data set with splits, its test rows.

    Unlike training, this takes one row, classes without rows and repeated texts.

    Args:
        data: As `load` takes it.
        label_names: The model's, in the order of their ids.
        labels: Names of the integer labels 0, 1, … in `data`; the model's own order, if not given.
        text_column: Column of the text, if it is not `text` (or `title` with `text` or `description`).
        label_column: Column of the label, if it is not `label`.

    Raises:
        UsageError: If there is no such file or the arguments do not fit each other.
        DataError: If the rows cannot be scored; the message names the row.
    """
    _check_distinct(labels)
    source = _open(data, label_column)
    column = _label_column(source, label_column)
    given = tuple(labels) or source.label_names
    known: dict[int | str, int] = {name: index for index, name in enumerate(label_names)}
    names_are_numbers = any(_ID.fullmatch(name) for name in label_names)
    numbered = dict(enumerate(given or (() if names_are_numbers else label_names), source.first_id))
    known |= {number: known[name] for number, name in numbered.items() if name in known}
    known |= {int(name): index for index, name in enumerate(label_names) if _ID.fullmatch(name)}
    if source.label_names and source.first_id == 0:
        known.setdefault(-1, -1)  # the Hub's rows without a label
    notes: list[str] = []
    for split in ("test", "validation", "train", ""):
        rows = source.splits.get(split, [])
        values = [_label_value(row.get(column)) for row in rows]
        for number, value in enumerate(values, 1):
            if value not in known:
                of = f"row {number}{f' of {split}' if split else ''}"
                if value == "":
                    raise DataError(f"{of} has no label", "label or remove it")
                name = numbered.get(value, value) if isinstance(value, int) else value
                raise DataError(
                    f"{of}: the model has no label {name!r}; it has {', '.join(label_names)}",
                    "leave such rows out, or name the integer labels in their order with --labels",
                )
        parts = _parts(rows, text_column) if rows else []
        ids = [known[value] for value in values]
        kept = [row for row, part in enumerate(parts) if ids[row] >= 0 and join(*part)]
        if kept:
            break
    else:
        raise DataError(f"{data!r} has no rows with text and label", "give some labelled rows")
    if given is None and not names_are_numbers and any(isinstance(value, int) for value in values):
        meant = ", ".join(f"{number} {name}" for number, name in numbered.items())
        notes.append(f"the labels are numbers and were taken as the model's: {meant}; --labels names others")
    if len(kept) < len(rows):
        notes.append(f"{len(rows) - len(kept)} rows without text or label were left out")
    items: list[NewsItem] = [
        {"title": title, "text": text} if title else text for title, text in map(parts.__getitem__, kept)
    ]
    digest = hashlib.sha256()
    for item, row in zip(items, kept, strict=True):
        digest.update(f"{json.dumps([item, label_names[ids[row]]])}\n".encode())
    return LabelledRows(items, [ids[row] for row in kept], split, digest.hexdigest(), tuple(notes))


def texts(file: Path | None = None) -> list[str]:
    """Read, clean and join the texts of a file, with labels or without, or of the bundled sample.

    Raises:
        DataError: If the file cannot be read, or has no texts.
    """
    with resources.as_file(resources.files("newsbert") / "sample.csv") as sample:
        found = [text for text in _texts(row_files.read(file or sample), None) if text]
    if not found:
        raise DataError(f"{file} has no texts", "give a file with a column `text`")
    return found


def _check_distinct(labels: Sequence[str]) -> None:
    if len(set(labels)) < len(labels):
        raise UsageError(f"--labels names a label twice: {', '.join(labels)}", "name every label once")


def _open(data: str, label_column: str | None) -> _Source:
    if data == SAMPLE:
        with resources.as_file(resources.files("newsbert") / "sample.csv") as path:
            return _Source({"": row_files.read(path)}, AG_NEWS_LABELS)
    path = Path(data)
    try:
        with suppress(RuntimeError):  # no such user's home: then there is no such file either
            path = path.expanduser()
        if path.is_file():
            return _from_files({"": path})
        if path.is_dir():
            named = _named_splits(path)
            return _from_files(named) if "train" in named else _from_hub(str(path), label_column)
    except OSError as error:
        raise UsageError(
            f"{data!r} cannot be read: {error.strerror or error}", "check the path and its rights"
        ) from error
    if path.suffix or data.startswith((".", "/", "~")) or data.count("/") > 1:
        raise UsageError(f"no such file: {data!r}", "check the path; `--data sample` trains on the bundled rows")
    return _from_hub(data, label_column)


def _named_splits(directory: Path) -> dict[str, Path]:
    """The files of a directory that are named after splits.

    Raises:
        UsageError: If two files are of the same split.
    """
    named: dict[str, Path] = {}
    for file in sorted(directory.iterdir()):
        split = _split_of(file) if file.is_file() else ""
        if split in named:
            raise UsageError(f"two files hold {split} rows: {named[split]} and {file}", "keep one, or join them")
        if split:
            named[split] = file
    return named


def _split_of(file: Path) -> str:
    """The split that a file's name tells (`train.csv`, `dev.jsonl.gz`), or nothing."""
    stem, _, suffix = file.name.lower().partition(".")
    return _SPLIT_NAMES.get(stem, "") if suffix.removesuffix(".gz") in row_files.FORMATS else ""


def _from_files(files: dict[str, Path]) -> _Source:
    splits = {name: row_files.read(path) for name, path in files.items()}
    first = next(iter(splits.values()))[0]
    if tuple(first) == AG_NEWS_COLUMNS:
        return _Source(splits, AG_NEWS_LABELS, first_id=1)
    return _Source(_by_split_column(splits))


def _by_split_column(splits: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """Divide a file's rows by its `split` column, if it has one that names splits and nothing else."""
    if list(splits) != [""] or "split" not in splits[""][0]:
        return splits
    divided: dict[str, list[Row]] = {}
    for row in splits[""]:
        name = _SPLIT_NAMES.get(str(row.get("split", "")).strip().lower())
        if name is None:
            return splits
        divided.setdefault(name, []).append(row)
    return divided if "train" in divided else splits


def _from_hub(name: str, label_column: str | None) -> _Source:
    """Load a data set through `datasets`: a Hub name, or a local directory in the Hub's layout."""
    try:
        import datasets
        from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of the HTTP library it uses
    except ImportError as error:
        raise MissingExtraError("datasets", "train") from error
    try:
        loaded = datasets.load_dataset(name)
    except (OSError, ValueError, HTTPError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"no data set {name!r} could be loaded: {first_line(error)}",
            "check the name and the network, or give a file: newsbert train --data rows.csv",
        ) from error
    if not any(len(rows) for rows in loaded.values()):
        raise DataError(f"the data set {name!r} has no rows", "give a few labelled rows for every class")
    splits: dict[str, list[Row]] = {}
    for split, rows in loaded.items():
        splits.setdefault(_SPLIT_NAMES.get(str(split), str(split)), []).extend(rows.to_list())
    feature = next(iter(loaded.values())).features.get(label_column or "label")
    names = tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else None
    kept = {split: splits[split] for split in ("train", "validation", "test") if splits.get(split)}
    return _Source(kept if "train" in kept else {"": [row for part in splits.values() for row in part]}, names)


def _texts(rows: Sequence[Row], column: str | None) -> list[str]:
    """Clean every row's text, with its title where it has one."""
    return [join(title, text, CLEANING_RULES) for title, text in _parts(rows, column)]


def _parts(rows: Sequence[Row], column: str | None) -> list[tuple[str, str]]:
    """Every row's title, empty where it has none, and text."""
    columns = row_files.columns(rows)
    if column is None:
        column = next((name for name in ("text", "description") if name in columns), None)
        title = "title" if "title" in columns else None
    else:
        title = None
    if column is None or column not in columns:
        raise DataError(
            f"no column {column or 'text'!r}; the columns are: {', '.join(columns)}", "name it with --text-column"
        )
    found = []
    for number, row in enumerate(rows, 1):
        parts = [row.get(title) if title else None, row.get(column)]
        for part in parts:
            if part is not None and not isinstance(part, str):
                raise DataError(f"row {number}: the text is no text but {part!r}", "name its column with --text-column")
        found.append((parts[0] or "", parts[1] or ""))
    return found


def _label_column(source: _Source, column: str | None) -> str:
    """The column of the label.

    Raises:
        DataError: If there is no such column.
    """
    columns = row_files.columns(row for rows in source.splits.values() for row in rows)
    column = column or (AG_NEWS_COLUMNS[0] if source.first_id else "label")
    if column not in columns:
        raise DataError(f"no column {column!r}; the columns are: {', '.join(columns)}", "name it with --label-column")
    return column


def _label_ids(
    source: _Source, labels: Sequence[str], column: str | None
) -> tuple[dict[str, list[int]], tuple[str, ...]]:
    """Map every row's label to an id, -1 where the Hub says that a row has none; return the names in order too."""
    column = _label_column(source, column)
    names = tuple(labels) or source.label_names
    values = {split: [_label_value(row.get(column)) for row in rows] for split, rows in source.splits.items()}
    distinct = Counter(value for column_values in values.values() for value in column_values)
    if names is None:
        ordered = sorted(set(distinct) - {""}, key=lambda value: (isinstance(value, str), value))
        names = tuple(map(str, ordered))
        known: dict[int | str, int] = {value: names.index(str(value)) for value in distinct if value != ""}
    else:
        known = {name: index for index, name in enumerate(names)}
        known |= {index + source.first_id: index for index in range(len(names))}
        # Names that are numbers themselves ("--labels 10,20") are still names.
        known |= {int(name): index for index, name in enumerate(names) if _ID.fullmatch(name)}
    if source.label_names and source.first_id == 0:
        known.setdefault(-1, -1)
    for split, column_values in values.items():
        for number, value in enumerate(column_values, 1):
            if value == "":
                raise DataError(f"row {number}{f' of {split}' if split else ''} has no label", "label or remove it")
            if value not in known:
                ids = f"ids {source.first_id} to {source.first_id + len(names) - 1}"
                raise DataError(
                    f"row {number}{f' of {split}' if split else ''}: unknown label {value!r}; "
                    f"known are {', '.join(names)} ({ids})",
                    "name every label with --labels, in the order of their ids",
                )
    return {split: [known[value] for value in column_values] for split, column_values in values.items()}, names


def _label_value(value: Any) -> int | str:
    """A label as it stands in a file: an id, also one written as text or as a whole float, or a name.

    Only what an id looks like when it is written is one: `007` is a name.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):  # NaN: an empty cell to pandas
        return ""
    if isinstance(value, list | dict):
        raise DataError(f"a label must be a text or a number, got {value!r:.80}", "name its column with --label-column")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = clean(str(value), ("unicode", "whitespace"))
    return int(text) if _ID.fullmatch(text) else text


def _three_splits(
    splits: dict[str, Split], names: tuple[str, ...], rng: np.random.Generator, notes: list[str]
) -> tuple[Split, Split, Split]:
    """Keep the splits there are and draw those that are missing from the training rows, by class."""
    given = {name: split for name, split in splits.items() if name and len(split)}
    pool = given.pop("train", None) or splits.get("") or Split([], [])
    missing = [name for name in ("test", "validation") if name not in given]
    if missing:
        pool = _without_duplicates(pool, notes)
        _check_classes(pool, names, least=1 + len(missing))
    drawn: dict[str, Split] = dict(given)
    for name in missing:
        share, most = (TEST_SHARE, MAX_TEST_ROWS) if name == "test" else (VALIDATION_SHARE, MAX_VALIDATION_ROWS)
        wanted = min(round(share * len(pool)), most)
        drawn[name], pool = _draw(pool, wanted, len(names), rng)
    held_out = {*drawn["validation"].texts, *drawn["test"].texts}
    leaked = [index for index, text in enumerate(pool.texts) if text in held_out]
    if leaked:
        notes.append(f"{len(leaked)} training rows stood in validation or test rows too and were left out")
        pool = _take(pool, sorted(set(range(len(pool))) - set(leaked)))
    return pool, drawn["validation"], drawn["test"]


def _without_duplicates(split: Split, notes: list[str]) -> Split:
    """Keep the first row of every text, so that no text lands on both sides of a split."""
    first: dict[str, int] = {}
    for index, text in enumerate(split.texts):
        first.setdefault(text, index)
    if len(first) < len(split):
        notes.append(f"{len(split) - len(first)} rows repeated another row's text and were left out")
    return _take(split, first.values())


def _check_classes(split: Split, names: tuple[str, ...], least: int = 1) -> None:
    """Refuse rows of one class only, and classes with fewer than `least` rows.

    Raises:
        DataError: Naming the class.
    """
    counts = Counter(split.labels)
    if not counts:
        raise DataError("there are no rows to train on", "give some labelled rows for every class")
    if len(counts) == 1:
        only = names[next(iter(counts))]
        raise DataError(f"all {len(split)} rows have the label {only!r}", "a classifier needs two classes or more")
    for index, name in enumerate(names):
        if counts[index] < least:
            rows = {0: "no row", 1: "only one row"}.get(counts[index], f"only {counts[index]} rows")
            raise DataError(
                f"the class {name!r} has {rows}, and training needs {least}",
                "add rows for it or leave the class out; every class needs a row to train, validate and test on",
            )


def _draw(split: Split, wanted: int, num_labels: int, rng: np.random.Generator) -> tuple[Split, Split]:
    """Draw `wanted` rows, every class in its share and at least one of each; return them and the rest."""
    labels = np.asarray(split.labels)
    shares = wanted * np.bincount(labels, minlength=num_labels) / len(labels)
    quotas = np.maximum(1, np.floor(shares)).astype(int)
    while quotas.sum() < wanted:
        quotas[np.argmax(shares - quotas)] += 1
    while quotas.sum() > max(wanted, num_labels):
        quotas[np.argmax(np.where(quotas > 1, quotas - shares, -np.inf))] -= 1
    chosen: list[int] = []
    for label, quota in enumerate(quotas):
        members = rng.permutation(np.flatnonzero(labels == label))
        chosen.extend(members[:quota].tolist())
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    return _take(split, sorted(chosen)), _take(split, rest.tolist())


def _sample(train: Split, samples: int, num_labels: int, rng: np.random.Generator, notes: list[str]) -> Split:
    if samples < num_labels:
        raise UsageError(f"--samples {samples} is fewer than the {num_labels} classes", "ask for more rows")
    if samples >= len(train):
        if samples > len(train):
            notes.append(f"--samples {samples} is more than the {len(train)} training rows: all are used")
        return train
    return _draw(train, samples, num_labels, rng)[0]


def _take(split: Split, indices: Iterable[int]) -> Split:
    chosen = list(indices)
    return Split([split.texts[index] for index in chosen], [split.labels[index] for index in chosen])


def _digest(names: tuple[str, ...], splits: Sequence[Split]) -> str:
    """SHA-256 of the JSON lines of label names, then of every split's rows."""
    digest = hashlib.sha256(json.dumps(names).encode())
    for split in splits:
        digest.update(b"\n--")
        for text, label in zip(split.texts, split.labels, strict=True):
            digest.update(f"\n{label} {json.dumps(text)}".encode())
    return digest.hexdigest()
