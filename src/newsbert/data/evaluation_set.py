"""Labelled rows for the evaluation of a finished model, without cleaning."""

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from newsbert.data import corpus, row_columns
from newsbert.data.class_folders import find_split
from newsbert.data.corpus import Faults, FaultyRowError
from newsbert.data.lines import Row
from newsbert.data.row_columns import ID
from newsbert.data.source import Source
from newsbert.data.sources import check_distinct, open_source
from newsbert.data.text import NewsItem, has_text, make_item
from newsbert.errors import DataError


@dataclass(frozen=True)
class LabelledRows:
    """Rows for the evaluation of a finished model.

    Attributes:
        items: Texts or title/text objects, not cleaned: every model applies its own rules.
        labels: Label ids of the model.
        split: Split of the rows if the data set has several, otherwise empty.
        digest: SHA-256 over items and label names, in order.
        notes: Notes for the user, such as on rows left out and on the interpretation of labels.
    """

    items: list[NewsItem]
    labels: list[int]
    split: str
    digest: str
    notes: tuple[str, ...] = ()


def labelled(  # noqa: PLR0913 - options by name
    data: str,
    label_names: Sequence[str],
    *,
    cleaning: Sequence[Sequence[str]] = (),
    labels: Sequence[str] = (),
    text_column: str | None = None,
    label_column: str | None = None,
    likely_texts: Sequence[str | None] = (),
    likely_labels: Sequence[str | None] = (),
) -> LabelledRows:
    """Read the labelled rows to evaluate a model on; of a data set with splits, the test rows.

    Unlike training, this accepts a single row, classes without rows and repeated texts.

    Args:
        data: `sample`, a path, or the name of a Hub data set.
        label_names: Label names of the models in id order.
        cleaning: The cleaning rules of every model; a row without text by any of them is left out.
        labels: Names of the integer labels 0, 1, … in `data`; by default, the order of the model.
        text_column: Column of the text, if it is not `text` (or `title` with `text` or `description`).
        label_column: Column of the label, if it is not `label`.
        likely_texts: Text columns that take precedence over the usual one if they exist and none is named.
        likely_labels: Label columns that do the same.

    Raises:
        UsageError: If there is no such file or the arguments are inconsistent.
        DataError: If the rows cannot be scored; the message names the row.
    """
    check_distinct(labels)
    source = open_source(data)
    columns, notes = source.find_columns(text_column, label_column, likely_texts, likely_labels)
    class_names = tuple(labels) or source.class_names(columns)
    known: dict[int | str, int] = {name: index for index, name in enumerate(label_names)}
    names_are_numbers = any(ID.fullmatch(name) for name in label_names)
    numbered = dict(enumerate(class_names or (() if names_are_numbers else label_names), source.first_id))
    known |= {number: known[name] for number, name in numbered.items() if name in known}
    known |= {int(name): index for index, name in enumerate(label_names) if ID.fullmatch(name)}
    if source.has_class_names and source.first_id == 0:
        known.setdefault(-1, -1)  # the Hub's rows without a label
    known[""] = -1
    parts, others = _group_by_split(source)
    notes += corpus.other_splits_note(others)
    for split in ("test", "validation", "train", ""):
        if split not in parts:
            continue
        split_columns = columns[split] if split in columns else columns.get("")
        if split_columns is None:
            continue
        rows = list(parts[split]())
        values = _read_labels(rows, split_columns.label, known, numbered, functools.partial(source.where, split))
        texts = corpus.parts(rows, split_columns.title, split_columns.text, functools.partial(source.where, split))
        ids = [known[value] for value in values]
        all_items = [make_item(*part) for part in texts]
        usable = [
            row
            for row, item in enumerate(all_items)
            if ids[row] >= 0 and all(has_text(item, rules) for rules in ((), *cleaning))
        ]
        if usable:
            break
    else:
        raise DataError(f"{data!r} has no rows with text and label", "give some labelled rows")
    if class_names is None and not names_are_numbers and any(isinstance(value, int) for value in values):
        mapping = ", ".join(f"{number} {name}" for number, name in numbered.items())
        notes.append(f"the labels are numbers and were taken as the model's: {mapping}; --labels names others")
    notes += source.notes()
    if len(usable) < len(rows):
        notes.append(corpus.left_out_note(len(rows) - len(usable)))
    items = [all_items[row] for row in usable]
    digest = hashlib.sha256()
    for item, row in zip(items, usable, strict=True):
        digest.update(f"{json.dumps([item, label_names[ids[row]]])}\n".encode())
    return LabelledRows(items, [ids[row] for row in usable], split, digest.hexdigest(), tuple(notes))


def _read_labels(
    rows: Sequence[Row],
    column: str,
    known: Mapping[int | str, int],
    numbered: Mapping[int, str],
    where: Callable[[int], str],
) -> list[int | str]:
    """Return the labels of the rows.

    Raises:
        DataError: If a label is unknown to the model.
    """
    values: list[int | str] = []
    faults = Faults()
    names = row_columns.show_names([name for name in known if isinstance(name, str) and name])
    for number, row in enumerate(rows, 1):
        try:
            value = corpus.label_of(row, column)
        except FaultyRowError as error:
            faults.add(where(number), error)
            continue
        if value not in known:
            name = numbered.get(value, value) if isinstance(value, int) else value
            fault = FaultyRowError(
                "an unknown label",
                f"column {column!r}: the model has no label {name!r:.80}; it has {names}",
                "leave such rows out, or name the integer labels in their order with --labels",
            )
            faults.add(where(number), fault)
        values.append(value)
    faults.check()
    return values


def _group_by_split(source: Source) -> tuple[dict[str, Callable[[], Iterable[Row]]], Counter[str]]:
    """Return the rows by split, and the numbers of rows by unknown value of the `split` column.

    A file without splits is divided by its `split` column.
    """
    column = row_columns.find(source.columns(), "split")
    others: Counter[str] = Counter()
    if list(source.splits) != [""] or column is None:
        return {name: split.rows for name, split in source.splits.items()}, others
    rows = list(source.splits[""].rows())
    divided: dict[str, list[Row]] = {}
    for row in rows:
        name = find_split(row.get(column))
        if name is None:
            others[str(row.get(column))] += 1
        else:
            divided.setdefault(name, []).append(row)
    if "train" not in divided:
        divided, others = {"": rows}, Counter()
    return {name: functools.partial(iter, part) for name, part in divided.items()}, others
