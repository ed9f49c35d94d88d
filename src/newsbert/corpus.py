"""Labelled rows on the disk: cleaned, with the ids of their labels; made of a source once."""

import hashlib
import json
import math
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newsbert import cached
from newsbert import rows as row_files
from newsbert.errors import DataError
from newsbert.evaluation import IntArray
from newsbert.ragged import Ragged, RaggedWriter, mapped
from newsbert.rows import AG_NEWS_COLUMNS, Row
from newsbert.sources import SPLIT_NAMES, Source
from newsbert.terminal import has_controls
from newsbert.text import CLEANING_RULES, clean, join

Labels = NDArray[np.int32]

_FORMAT = 1
_WRITTEN_ROWS = 4096
_TEXTS, _LABELS, _DIGESTS, _ABOUT = "texts", "labels.bin", "digests.bin", "about.json"
ID = re.compile(r"0|-?[1-9][0-9]{0,17}")


@dataclass(frozen=True)
class Corpus:
    """All rows of a source that have a text and a label.

    Attributes:
        texts: UTF-8, prepared.
        labels: Their ids.
        digests: 128 bits of a BLAKE2 of each text: `(rows, 2)`.
        splits: Which rows each split has; `""` where there are none.
        label_names: Names in the order of their ids.
        notes: What the user should know of it.
    """

    texts: Ragged[np.uint8]
    labels: Labels
    digests: NDArray[np.uint64]
    splits: dict[str, IntArray]
    label_names: tuple[str, ...]
    notes: list[str]


def prepare(source: Source, labels: Sequence[str], text_column: str | None, label_column: str | None) -> Corpus:
    """Find a source's corpus in the cache directory, or make it.

    Raises:
        DataError: If a row cannot be trained on; the message names it.
        NewsbertError: If the cache directory cannot be written to.
    """
    asked = [_FORMAT, source.identity, source.label_names, CLEANING_RULES, list(labels), text_column, label_column]
    key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
    return _read(cached.directory("rows", key, lambda part: _write(part, source, labels, text_column, label_column)))


def _read(directory: Path) -> Corpus:
    about = json.loads((directory / _ABOUT).read_text(encoding="utf-8"))
    codes = mapped(directory / "splits.bin", np.int8)
    names: list[str] = about["splits"]
    return Corpus(
        Ragged(directory / _TEXTS, np.uint8),
        mapped(directory / _LABELS, np.int32),
        mapped(directory / _DIGESTS, np.uint64).reshape(-1, 2),
        {name: np.flatnonzero(codes == code) for code, name in enumerate(names)},
        tuple(about["label_names"]),
        about["notes"],
    )


def _write(
    directory: Path, source: Source, labels: Sequence[str], text_column: str | None, label_column: str | None
) -> None:
    directory.mkdir()
    ids = _LabelIds(source, labels, label_column)
    by_column = list(source.splits) == [""] and "split" in source.columns()
    columns = {split: _text_columns(source.columns(split), text_column) for split in source.splits}
    label_ids, codes = array("i"), array("b")
    left_out = dict.fromkeys(source.splits, 0)
    names, divided = list(source.splits), by_column
    texts: list[bytes] = []
    with RaggedWriter(directory / _TEXTS, np.uint8) as writer, (directory / _DIGESTS).open("wb") as digests:
        for code, (split, rows) in enumerate(source.splits.items()):
            for number, row in enumerate(rows(), 1):
                label = ids.of(row, number, split)
                text = _text(row, number, *columns[split])
                if not text or label < 0:
                    left_out[split] += 1
                    continue
                encoded = text.encode()
                texts.append(encoded)
                label_ids.append(label)
                digests.write(hashlib.blake2b(encoded, digest_size=16).digest())
                if divided:
                    name = SPLIT_NAMES.get(str(row.get("split", "")).strip().lower())
                    divided = name is not None
                    if name is not None and name not in names:
                        names.append(name)
                    codes.append(names.index(name) if name is not None else 0)
                else:
                    codes.append(code)
                if len(texts) == _WRITTEN_ROWS:
                    writer.extend(texts)
                    texts.clear()
        writer.extend(texts)
    found = np.frombuffer(codes, np.int8) if codes else np.empty(0, np.int8)
    if by_column and not (divided and "train" in names):
        found, names = np.zeros_like(found), [""]
    final, order = ids.final()
    (directory / "splits.bin").write_bytes(found.tobytes())
    (directory / _LABELS).write_bytes(order[np.frombuffer(label_ids, np.int32)].tobytes() if label_ids else b"")
    notes = [f"{count} rows without text or label were left out" for count in left_out.values() if count]
    about = {"splits": names, "label_names": final, "notes": notes}
    (directory / _ABOUT).write_text(json.dumps(about), encoding="utf-8")


def parts(rows: Sequence[Row], column: str | None = None) -> list[tuple[str, str]]:
    """Every row's title, empty where it has none, and text.

    Raises:
        DataError: If there is no such column, or it holds something else.
    """
    columns = _text_columns(row_files.columns(rows), column) if rows else None
    return [_parts(row, number, *columns) for number, row in enumerate(rows, 1)] if columns else []


def _text_columns(columns: Sequence[str], column: str | None) -> tuple[str | None, str]:
    """The columns of title and text.

    Raises:
        DataError: If there is none of a text.
    """
    title = None
    if column is None:
        column = next((name for name in ("text", "description") if name in columns), None)
        title = "title" if "title" in columns else None
    if column is None or column not in columns:
        raise DataError(
            f"no column {column or 'text'!r}; the columns are: {', '.join(columns)}", "name it with --text-column"
        )
    return title, column


def _parts(row: Row, number: int, title: str | None, column: str) -> tuple[str, str]:
    """A row's title, empty where it has none, and text.

    Raises:
        DataError: If one of them is something else.
    """
    parts = [row.get(title) if title else None, row.get(column)]
    for part in parts:
        if part is not None and not isinstance(part, str):
            raise DataError(f"row {number}: the text is no text but {part!r}", "name its column with --text-column")
    return parts[0] or "", parts[1] or ""


def _text(row: Row, number: int, title: str | None, column: str) -> str:
    return join(*_parts(row, number, title, column), CLEANING_RULES)


def label_column_of(source: Source, column: str | None) -> str:
    """The column of the label.

    Raises:
        DataError: If there is no such column.
    """
    columns = source.columns()
    column = column or (AG_NEWS_COLUMNS[0] if source.first_id else "label")
    if column not in columns:
        raise DataError(f"no column {column!r}; the columns are: {', '.join(columns)}", "name it with --label-column")
    return column


class _LabelIds:
    """From what stands in a row's label column to an id, -1 where the Hub says that a row has none.

    Raises:
        DataError: If there is no such column.
    """

    def __init__(self, source: Source, labels: Sequence[str], column: str | None) -> None:
        self._column = label_column_of(source, column)
        self._names = tuple(labels) or source.label_names
        for name in self._names or ():
            if has_controls(name):
                raise DataError(f"the label {name!r:.80} holds a control character", "rename it: --labels A,B")
        self._first_id = source.first_id
        self._known: dict[int | str, int] = {}
        if self._names is not None:
            self._known = {name: index for index, name in enumerate(self._names)}
            self._known |= {index + source.first_id: index for index in range(len(self._names))}
            # Names that are numbers themselves ("--labels 10,20") are still names.
            self._known |= {int(name): index for index, name in enumerate(self._names) if ID.fullmatch(name)}
        if source.label_names and source.first_id == 0:
            self._known.setdefault(-1, -1)

    def of(self, row: Row, number: int, split: str) -> int:
        """A row's id; that of a label not met before, where no names are given, is a new one.

        Raises:
            DataError: If it has no label, or one that is not known.
        """
        value = label_value(row.get(self._column))
        where = f"row {number}{f' of {split}' if split else ''}"
        if value == "":
            raise DataError(f"{where} has no label", "label or remove it")
        if self._names is None:
            return self._known.setdefault(value, len(self._known))
        if value not in self._known:
            ids = f"ids {self._first_id} to {self._first_id + len(self._names) - 1}"
            raise DataError(
                f"{where}: unknown label {value!r}; known are {', '.join(self._names)} ({ids})",
                "name every label with --labels, in the order of their ids",
            )
        return self._known[value]

    def final(self) -> tuple[list[str], Labels]:
        """The names in order, and by each id that `of` returned what it is there."""
        if self._names is not None:
            return list(self._names), np.arange(len(self._names), dtype=np.int32)
        ordered = sorted(self._known, key=lambda value: (isinstance(value, str), value))
        order = np.empty(len(ordered), np.int32)
        for index, value in enumerate(ordered):
            order[self._known[value]] = index
        return [str(value) for value in ordered], order


def label_value(value: Any) -> int | str:
    """A label as it stands in a file: an id, also one written as text or as a whole float, or a name.

    Only what an id looks like when it is written is one: `007` is a name. Nothing is the empty text.

    Raises:
        DataError: If it is a list or an object, or holds a control character.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):  # NaN: an empty cell to pandas
        return ""
    if isinstance(value, list | dict):
        raise DataError(f"a label must be a text or a number, got {value!r:.80}", "name its column with --label-column")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if has_controls(str(value).strip()):
        raise DataError(f"the label {value!r:.80} holds a control character", "remove it from the file")
    text = clean(str(value), ("unicode", "whitespace"))
    return int(text) if ID.fullmatch(text) else text
