"""Rows of JSON files: one object per line, a list of objects, or a document of another shape that pandas writes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from newsbert.data.lines import Lines, Row, RowError, Sized
from newsbert.data.row_columns import KNOWN_NAMES, normalize, show_names
from newsbert.errors import DataError


class _NoRowError(Exception):
    """A value that is no row: the reason, a hint, the line if the text has several, and the value."""


def read_lines(lines: Lines) -> Iterator[Sized]:
    """Yield the object of every line, and a `RowError` for every line without one."""
    for line in lines:
        if line.strip():
            try:
                row: Row | RowError = lines.undecodable() or _require_object(_parse(line.strip()))
            except _NoRowError as error:
                row = lines.fault(*error.args)
            yield row, lines.size
        lines.forget()


def read_document(path: Path, lines: Lines, notes: list[str]) -> Iterator[Sized]:
    """Yield the objects of a document, and a `RowError` for every item that is no object.

    Args:
        path: The file.
        lines: Lines of the file, which are in memory at once.
        notes: List to which the shape of the document is appended, if it is not a list.

    Raises:
        DataError: If the file is no JSON, or the shape of the document is unknown.
    """
    content = []
    for line in lines:
        fault = lines.undecodable()
        if fault is not None:
            raise fault.error(path)
        content.append(line)
        lines.forget()
    text = "".join(content)
    if not text.strip():
        return
    try:
        document = _parse(text)
    except _NoRowError as error:
        reason, hint, line_number = error.args
        raise RowError(f"line {line_number or 1}", reason, hint, "").error(path) from error
    del content, text
    for index, value in enumerate(_find_rows(path, document, notes)):
        try:
            yield _require_object(value), 0
        except _NoRowError as error:
            reason, hint, *_ = error.args
            content = error.args[3] if isinstance(value, _NoRowError) else value
            yield RowError(f"item {index}", reason, hint, json.dumps(content)), 0


def _find_rows(path: Path, document: Any, notes: list[str]) -> list[Any]:
    """Return the rows of a document.

    Source: https://pandas.pydata.org/docs/reference/api/pandas.DataFrame.to_json.html, `orient`.
    """
    hint = "write [{…}, {…}], or an object a line"
    if isinstance(document, list):
        return document
    if not isinstance(document, dict) or not document:
        raise DataError(f"{path}: expected a list of objects", hint)
    if set(document) <= {"columns", "index", "data"} and all(
        isinstance(document.get(name), list) for name in ("columns", "data")
    ):
        notes.append("rows and columns are apart")
        names = [str(name) for name in document["columns"]]
        if len(set(names)) < len(names):
            raise DataError(f"{path}: two columns have the same name: {show_names(names)}", "rename one of them")
        return [_join_row(names, row) for row in document["data"]]
    values = list(document.values())
    columns = all(isinstance(value, list) and len(value) == len(values[0]) for value in values)
    lists: dict[str, list[Any]] = {name: value for name, value in document.items() if _are_objects(value)}
    if columns and len(lists) < len(values):
        notes.append("its values are columns")
        return [dict(zip(document, row, strict=True)) for row in zip(*values, strict=True)]
    if len(lists) > 1:
        raise DataError(f"{path} holds several lists: {show_names(list(lists))}", "write each to a file of its own")
    if lists:
        ((name, items),) = lists.items()
        notes.append(f"the rows are those under {name!r}")
        return items
    if all(isinstance(value, dict) and value.keys() == values[0].keys() for value in values):
        outer, inner = (all(re.fullmatch("[0-9]+", name) for name in names) for names in (document, values[0]))
        if inner and not outer:
            notes.append("its values are columns")
            return [{name: column[key] for name, column in document.items()} for key in values[0]]
        if outer and not inner:
            notes.append("its values are rows")
            return values
        outer, inner = (any(normalize(name) in KNOWN_NAMES for name in names) for names in (document, values[0]))
        if outer and not inner:
            notes.append("its values are columns")
            return [{name: column[key] for name, column in document.items()} for key in values[0]]
        if inner and not outer:
            notes.append("its values are rows")
            return values
    raise DataError(f"{path}: expected a list of objects, got an object with {show_names(list(document))}", hint)


def _join_row(names: list[str], row: Any) -> Any:
    """Return a row by column name, or an error if its cells do not fit the columns."""
    if not isinstance(row, list):
        return _NoRowError(f"expected a list of cells, got {type(row).__name__}", "write one list a row", None, row)
    if len(row) != len(names):
        return _NoRowError(f"{len(row)} cells, but there are {len(names)} columns", "mend it", None, row)
    return dict(zip(names, row, strict=True))


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _parse(content: str) -> Any:
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        hint = "write an object a line, and name the file .jsonl" if error.msg == "Extra data" else "mend it"
        if not content.lstrip().startswith(("{", "[")):
            hint = "if it is csv, name the file .csv"
        elif content.strip() in {"{", "["}:
            hint = "write an object a line, or name the file .json if it is one document"
        raise _NoRowError(f"not valid JSON: {error.msg}", hint, error.lineno if error.lineno > 1 else None) from error
    except ValueError as error:  # a number with more digits than Python converts to an int
        raise _NoRowError(f"not readable JSON: {error}", "mend it", None) from error
    except RecursionError as error:
        raise _NoRowError("JSON nested too deep", "write flat objects", None) from error


def _require_object(value: Any) -> Row:
    if isinstance(value, _NoRowError):
        raise value
    if not isinstance(value, dict):
        raise _NoRowError(f"expected an object, got {type(value).__name__}", "write one object a row", None)
    return value
