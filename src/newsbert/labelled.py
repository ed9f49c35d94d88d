"""Labelled rows that a finished model is scored on, as they were found."""

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from newsbert import corpus
from newsbert.corpus import ID, label_column_of, label_value
from newsbert.errors import DataError
from newsbert.rows import Row
from newsbert.sources import SPLIT_NAMES, Splits, check_distinct, open_source
from newsbert.text import NewsItem, join


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
    check_distinct(labels)
    source = open_source(data, label_column)
    column = label_column_of(source, label_column)
    splits = _by_split_column(source.splits)
    given = tuple(labels) or source.label_names
    known: dict[int | str, int] = {name: index for index, name in enumerate(label_names)}
    names_are_numbers = any(ID.fullmatch(name) for name in label_names)
    numbered = dict(enumerate(given or (() if names_are_numbers else label_names), source.first_id))
    known |= {number: known[name] for number, name in numbered.items() if name in known}
    known |= {int(name): index for index, name in enumerate(label_names) if ID.fullmatch(name)}
    if source.label_names and source.first_id == 0:
        known.setdefault(-1, -1)  # the Hub's rows without a label
    notes: list[str] = []
    for split in ("test", "validation", "train", ""):
        rows = list(splits[split]()) if split in splits else []
        values = [label_value(row.get(column)) for row in rows]
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
        parts = corpus.parts(rows, text_column)
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


def _by_split_column(splits: Splits) -> Splits:
    """Divide a file's rows by its `split` column, if it has one that names splits and nothing else."""
    if list(splits) != [""]:
        return splits
    rows = list(splits[""]())
    divided: dict[str, list[Row]] = {}
    for row in rows:
        divided.setdefault(SPLIT_NAMES.get(str(row.get("split", "")).strip().lower(), ""), []).append(row)
    if "train" not in divided or "" in divided:
        divided = {"": rows}
    return {name: functools.partial(iter, part) for name, part in divided.items()}
