"""Labelled rows on disk, cleaned and with label ids, cached by source."""

import dataclasses
import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from newsbert.core import cache
from newsbert.core.terminal import has_controls
from newsbert.core.types import IntArray
from newsbert.data import row_columns
from newsbert.data.class_folders import find_split
from newsbert.data.lines import Row
from newsbert.data.ragged_array import RaggedArray, RaggedWriter, mapped
from newsbert.data.row_columns import ID, show_names
from newsbert.data.source import Columns, Source
from newsbert.data.text import CLEANING_RULES, join
from newsbert.errors import DataError

Labels = NDArray[np.int32]

_FORMAT_VERSION = 4
_NO_SPLIT = -1
_MAX_SHOWN_CHARS = 80
_BATCH_ROWS = 4096
_MISSING_MARKS = {"na", "n/a", "#n/a", "null", "none", "\\n", "-", "--", "?"}
_TEXTS, _LABELS, _DIGESTS, _METADATA = "texts", "labels.bin", "digests.bin", "about.json"


@dataclass(frozen=True)
class Corpus:
    """All rows of a source that have a text and a label.

    Attributes:
        texts: Prepared texts in UTF-8.
        labels: Label ids.
        digests: 128-bit BLAKE2 digests of the texts: `(rows, 2)`.
        splits: Row indices by split; the split is `""` if there are no splits.
        label_names: Label names in id order.
        notes: Notes for the user.
    """

    texts: RaggedArray[np.uint8]
    labels: Labels
    digests: NDArray[np.uint64]
    splits: dict[str, IntArray]
    label_names: tuple[str, ...]
    notes: list[str]


def prepare(source: Source, labels: Sequence[str], text_column: str | None, label_column: str | None) -> Corpus:
    """Return the corpus of a source from the cache directory; create it there if it is missing.

    Raises:
        DataError: If a row cannot be trained on; the message names it.
        NewsbertError: If the cache directory cannot be written to.
    """
    columns, notes = source.find_columns(text_column, label_column)
    names = tuple(labels) or source.class_names(columns)
    column_names = {split: dataclasses.astuple(part) for split, part in columns.items()}
    parts = [_FORMAT_VERSION, source.identity, names, source.first_id, CLEANING_RULES, column_names]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return _read(cache.get_or_create_dir("rows", key, lambda part: _write(part, source, columns, names, notes)))


def _read(directory: Path) -> Corpus:
    metadata = json.loads((directory / _METADATA).read_text(encoding="utf-8"))
    codes = mapped(directory / "splits.bin", np.int8)
    names: list[str] = metadata["splits"]
    return Corpus(
        RaggedArray(directory / _TEXTS, np.uint8),
        mapped(directory / _LABELS, np.int32),
        mapped(directory / _DIGESTS, np.uint64).reshape(-1, 2),
        {name: indices for code, name in enumerate(names) if len(indices := np.flatnonzero(codes == code)) or not name},
        tuple(metadata["label_names"]),
        metadata["notes"],
    )


def _write(
    directory: Path,
    source: Source,
    columns: Mapping[str, Columns],
    label_names: tuple[str, ...] | None,
    notes: Sequence[str],
) -> None:
    directory.mkdir()
    ids = _LabelIds(label_names, source)
    split_column = row_columns.find(source.columns(), "split") if list(source.splits) == [""] else None
    label_ids, codes = array("i"), array("b")
    left_out = dict.fromkeys(source.splits, 0)
    names, others = list(source.splits), Counter[str]()
    texts: list[bytes] = []
    faults = Faults()
    with RaggedWriter(directory / _TEXTS, np.uint8) as writer, (directory / _DIGESTS).open("wb") as digests:
        for code, split in enumerate(source.splits):
            for number, row in enumerate(source.splits[split].rows(), 1) if split in columns else ():
                try:
                    label = ids.of(row, columns[split].label)
                    text = join(*text_parts(row, columns[split].title, columns[split].text), CLEANING_RULES)
                except FaultyRowError as error:
                    faults.add(source.where(split, number), error)
                    continue
                if not text or label < 0:
                    left_out[split] += 1
                    continue
                ids.count(label)
                encoded = text.encode()
                texts.append(encoded)
                label_ids.append(label)
                digests.write(hashlib.blake2b(encoded, digest_size=16).digest())
                if split_column is not None:
                    name = find_split(row.get(split_column))
                    others.update([str(row.get(split_column))] if name is None else [])
                    names += [name] if name is not None and name not in names else []
                    codes.append(_NO_SPLIT if name is None else names.index(name))
                else:
                    codes.append(code)
                if len(texts) == _BATCH_ROWS:
                    writer.extend(texts)
                    texts.clear()
        writer.extend(texts)
    faults.check()
    split_codes = np.frombuffer(codes, np.int8) if codes else np.empty(0, np.int8)
    if split_column is not None and "train" not in names:
        split_codes, names, others = np.zeros_like(split_codes), [""], Counter()
    final, order = ids.final()
    (directory / "splits.bin").write_bytes(split_codes.tobytes())
    (directory / _LABELS).write_bytes(order[np.frombuffer(label_ids, np.int32)].tobytes() if label_ids else b"")
    notes = [*source.notes(), *notes, *ids.notes()]
    notes += [left_out_note(count) for count in left_out.values() if count]
    notes += other_splits_note(others)
    metadata = {"splits": names, "label_names": final, "notes": notes}
    (directory / _METADATA).write_text(json.dumps(metadata), encoding="utf-8")


def left_out_note(count: int) -> str:
    """Return the note on rows that cannot be used."""
    return f"{count} row{'' if count == 1 else 's'} without text or label {'was' if count == 1 else 'were'} left out"


def other_splits_note(others: Counter[str]) -> list[str]:
    """Return the note on rows of unknown splits, counted by the values of the split column."""
    if not others:
        return []
    examples = ", ".join(_format_count(name[:_MAX_SHOWN_CHARS], count) for name, count in others.most_common(3))
    return [f"rows of other splits than train, validation and test are left out: {examples}"]


class FaultyRowError(Exception):
    """A row that cannot be used.

    Args:
        kind: Description of the problem, the same for all rows that have it.
        message: Description of the problem with the value.
        hint: Remedy.
    """

    def __init__(self, kind: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.kind, self.hint = kind, hint


class Faults:
    """Collection of rows that cannot be used; reports the first and the number of similar ones."""

    def __init__(self) -> None:
        self._first: tuple[str, FaultyRowError] | None = None
        self._counts: Counter[str] = Counter()

    def add(self, where: str, error: FaultyRowError) -> None:
        """Record a row that cannot be used."""
        self._first = self._first or (where, error)
        self._counts[error.kind] += 1

    def check(self) -> None:
        """Raise an error if rows were recorded.

        Raises:
            DataError: If there are such rows; the message names the first.
        """
        if self._first is None:
            return
        where, error = self._first
        alike = self._counts[error.kind] - 1
        more = f"; {alike} more {'row has' if alike == 1 else 'rows have'} {error.kind}" if alike else ""
        raise DataError(f"{where}, {error}{more}", error.hint) from error


def parts(
    rows: Sequence[Row], title: str | None, column: str, where: Callable[[int], str] = "row {}".format
) -> list[tuple[str, str]]:
    """Return the title and the text of every row; a missing title is empty.

    Args:
        rows: The rows.
        title: Column of the title, if any.
        column: Column of the text.
        where: Function from the number of a row to its name in messages.

    Raises:
        DataError: If a title or a text is no text.
    """
    pairs, faults = [], Faults()
    for number, row in enumerate(rows, 1):
        try:
            pairs.append(text_parts(row, title, column))
        except FaultyRowError as error:
            faults.add(where(number), error)
    faults.check()
    return pairs


def text_parts(row: Row, title: str | None, column: str) -> tuple[str, str]:
    """Return the title and the text of a row; a missing title is empty.

    Raises:
        FaultyRowError: If one of them is no text.
    """
    try:
        return row_columns.text_of(row, title), row_columns.text_of(row, column)
    except ValueError as error:
        raise FaultyRowError("no text", f"column {column!r}: {error}", "name its column with --text-column") from error


def label_of(row: Row, column: str) -> int | str:
    """Return the label of a row, which is empty if there is none.

    Raises:
        FaultyRowError: If the value is no label.
    """
    try:
        return row_columns.label_of(row, column)
    except ValueError as error:
        raise FaultyRowError(
            "such a label", f"column {column!r}: {error}", "remove it, or name the labels' column with --label-column"
        ) from error


def _format_count(name: str, count: int) -> str:
    return f"{name!r} ({count} row{'' if count == 1 else 's'})"


class _LabelIds:
    """Mapping from the values of a label column to ids, with -1 for a row without a label.

    Args:
        names: Label names in id order, if they are known.
        source: Source of the rows.

    Raises:
        DataError: If a name holds a control character.
    """

    def __init__(self, names: tuple[str, ...] | None, source: Source) -> None:
        self._names = names
        for name in self._names or ():
            if has_controls(name):
                raise DataError(f"the label {name!r:.80} holds a control character", "rename it: --labels A,B")
        self._first_id = source.first_id
        self._known: dict[int | str, int] = {}
        self._counts: Counter[int] = Counter()
        if self._names is not None:
            self._known = {name: index for index, name in enumerate(self._names)}
            self._known |= {index + source.first_id: index for index in range(len(self._names))}
            # Names that are numbers themselves ("--labels 10,20") are still names.
            self._known |= {int(name): index for index, name in enumerate(self._names) if ID.fullmatch(name)}
        if source.has_class_names and source.first_id == 0:
            self._known.setdefault(-1, -1)

    def of(self, row: Row, column: str) -> int:
        """Return the label id of a row; without known names, a new label gets a new id.

        Raises:
            FaultyRowError: If the label is unknown.
        """
        value = label_of(row, column)
        if value == "":
            return -1
        if self._names is None:
            return self._known.setdefault(value, len(self._known))
        if value not in self._known:
            ids = f"ids {self._first_id} to {self._first_id + len(self._names) - 1}"
            raise FaultyRowError(
                "an unknown label",
                f"column {column!r}: unknown label {value!r:.80}; known are {show_names(self._names)} ({ids})",
                "name every label with --labels, in the order of their ids",
            )
        return self._known[value]

    def count(self, label: int) -> None:
        """Count a row with this label id."""
        self._counts[label] += 1

    def notes(self) -> list[str]:
        """Return notes on labels that differ by case alone, and on labels that look like empty cells."""
        alike: dict[str, list[tuple[str, int]]] = {}
        for value, index in self._known.items():
            if isinstance(value, str) and self._counts[index]:
                alike.setdefault(value.casefold(), []).append((value, self._counts[index]))
        groups = sorted(sorted(names) for names in alike.values() if len(names) > 1)
        phrases = [" and ".join(_format_count(*names) for names in group) for group in groups]
        notes = [f"labels that differ by case alone are different labels: {', '.join(phrases)}"] if phrases else []
        missing = sorted(
            (value, self._counts[index])
            for value, index in self._known.items()
            if isinstance(value, str) and value.casefold() in _MISSING_MARKS and self._counts[index]
        )
        if missing and self._names is None:
            phrases = [_format_count(*value) for value in missing]
            notes.append(f"taken for labels, though they look like empty cells: {', '.join(phrases)}")
        return notes

    def final(self) -> tuple[list[str], Labels]:
        """Return the label names in id order, and an array from the ids that `of` returned to the final ids."""
        if self._names is not None:
            return list(self._names), np.arange(len(self._names), dtype=np.int32)
        ordered = sorted(self._known, key=lambda value: (isinstance(value, str), value))
        order = np.empty(len(ordered), np.int32)
        for index, value in enumerate(ordered):
            order[self._known[value]] = index
        return [str(value) for value in ordered], order
