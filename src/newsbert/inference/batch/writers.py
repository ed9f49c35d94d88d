"""Rows with their answers as they stand in the output, window by window."""

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from newsbert.data.lines import Row
from newsbert.inference.batch import parquet
from newsbert.inference.batch.readers import Window

Answers = Sequence[Sequence[Any]]
"""Columns of labels, scores, reviews and probabilities; a row without an answer has `None` in all of them."""


class Encoding(Protocol):
    """A format of outputs.

    Attributes:
        header: What comes before all rows.
    """

    header: bytes

    def encode(self, window: Window, answers: Answers, first: bool) -> bytes:
        """Return the rows of a window; whether they are the first ones is told."""
        ...

    def finish(self, encoded: Path) -> Path:
        """Turn header and rows in a file into the output, there or in a file beside it."""
        ...


class ParquetEncoding:
    """Parquet; Arrow streams until all rows are there, since a parquet file cannot be continued.

    Args:
        schema: Arrow schema of the input's columns.
        names: Names of the columns of label, score, review and probabilities.
    """

    header = b""

    def __init__(self, schema: Any, names: Sequence[str]) -> None:
        self._schema = schema
        self._names = names

    def encode(self, window: Window, answers: Answers, first: bool) -> bytes:
        """Return the rows of a window."""
        return parquet.answered(window, self._schema, self._names, answers)

    def finish(self, encoded: Path) -> Path:
        """Write the parquet file."""
        output = encoded.with_name("output.parquet")
        parquet.write_parquet(encoded, output)
        return output


class JsonEncoding:
    """A row a line, or a list of them.

    Args:
        lines: Whether it is the former.
        names: Names of the columns of label, score, review and probabilities.
    """

    def __init__(self, lines: bool, names: Sequence[str]) -> None:
        self._lines = lines
        self._names = names
        self.header = b"" if lines else b"[\n"

    def encode(self, window: Window, answers: Answers, first: bool) -> bytes:
        """Return the rows of a window."""
        rows = _with_answers(window.rows, self._names, answers)
        if self._lines:
            return to_bytes("".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows))
        texts = [json.dumps([row], ensure_ascii=False, default=str, indent=1)[2:-2] for row in rows]
        return to_bytes(("" if first else ",\n") + ",\n".join(texts)) if texts else b""

    def finish(self, encoded: Path) -> Path:
        """Close the list."""
        if not self._lines:
            with encoded.open("ab") as stream:
                stream.write(b"\n]")
        return encoded


class CsvEncoding:
    """A header and a line a row; lists, objects, true and false as JSON.

    A tsv file has no quotes around its fields: a quote is a character, and a blank stands for tabs and line breaks.

    Args:
        kind: `csv` or `tsv`.
        columns: Names of the input's columns.
        names: Names of the columns of label, score, review and probabilities.
    """

    def __init__(self, kind: str, columns: Sequence[str], names: Sequence[str]) -> None:
        self._kind = kind
        self._columns = [*columns, *names]
        self._names = names
        self.header = self._lines([self._columns])

    def encode(self, window: Window, answers: Answers, first: bool) -> bytes:
        """Return the rows of a window."""
        rows = _with_answers(window.rows, self._names, answers)
        return self._lines([[_field(row.get(name)) for name in self._columns] for row in rows])

    def finish(self, encoded: Path) -> Path:
        """Nothing is left to do."""
        return encoded

    def _lines(self, lines: Sequence[Sequence[Any]]) -> bytes:
        if self._kind == "tsv":
            return to_bytes("".join("\t".join(map(_one_line, line)) + "\n" for line in lines))
        stream = io.StringIO(newline="")
        plain, quoted = (
            csv.writer(stream, lineterminator="\n", quoting=quoting) for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
        )
        for line in lines:
            # With this line terminator the module does not see that a carriage return needs quotes.
            returns = any(isinstance(field, str) and "\r" in field for field in line)
            (quoted if returns else plain).writerow(line)
        return to_bytes(stream.getvalue())


def _one_line(field: Any) -> str:
    return "" if field is None else re.sub(r"[\t\r\n]+", " ", str(field))


def make(kind: str, columns: Sequence[str], schema: Any, names: Sequence[str]) -> Encoding:
    """Return the encoding of an output's format.

    Args:
        kind: One of `rows.FORMATS`.
        columns: Names of the input's columns.
        schema: Their Arrow schema if the format is parquet.
        names: Names of the columns of label, score, review and probabilities.
    """
    if kind == "parquet":
        return ParquetEncoding(schema, names)
    if kind in {"json", "jsonl"}:
        return JsonEncoding(kind == "jsonl", names)
    return CsvEncoding(kind, columns, names)


def to_bytes(text: str) -> bytes:
    """UTF-8; a lone surrogate, which JSON input may hold, is written as JSON escapes it."""
    return text.encode("utf-8", "backslashreplace")


def _with_answers(rows: Sequence[Row], names: Sequence[str], answers: Answers) -> list[Row]:
    return [
        row | dict(zip(names, each, strict=True)) for row, each in zip(rows, zip(*answers, strict=True), strict=True)
    ]


def _field(value: Any) -> Any:
    if isinstance(value, (dict, list, bool)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value
