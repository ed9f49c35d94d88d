"""Encodings of rows with their predictions in the output, window by window."""

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
"""Columns of labels, scores, reviews and probabilities; a row without a prediction has `None` in all of them."""


class Encoding(Protocol):
    """Output format.

    Attributes:
        header: Bytes before the first row.
    """

    header: bytes

    def encode(self, window: Window, answers: Answers) -> bytes:
        """Return the encoded rows of a window."""
        ...

    def finish(self, encoded: Path) -> Path:
        """Turn a file of header and rows into the output, in place or beside it; return its path."""
        ...


class ParquetEncoding:
    """Parquet output. It consists of Arrow streams until all rows are there, since a parquet file cannot be continued.

    Args:
        schema: Arrow schema of the input's columns.
        names: Names of the columns of label, score, review and probabilities.
    """

    header = b""

    def __init__(self, schema: Any, names: Sequence[str]) -> None:
        self._schema = schema
        self._names = names

    def encode(self, window: Window, answers: Answers) -> bytes:
        """Return the encoded rows of a window."""
        return parquet.answered(window, self._schema, self._names, answers)

    def finish(self, encoded: Path) -> Path:
        """Write the parquet file."""
        output = encoded.with_name("output.parquet")
        parquet.write_parquet(encoded, output)
        return output


class JsonLinesEncoding:
    """JSON lines output: an object per row.

    Args:
        names: Names of the columns of label, score, review and probabilities.
    """

    header = b""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def encode(self, window: Window, answers: Answers) -> bytes:
        """Return the encoded rows of a window."""
        rows = _add_answers(window.rows, self._names, answers)
        return to_bytes("".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows))

    def finish(self, encoded: Path) -> Path:
        """Return the file unchanged."""
        return encoded


class CsvEncoding:
    """CSV or TSV output: a header, and a line per row. Lists, objects and booleans are written as JSON.

    A tsv file has no quotes around its fields: a quote is a character, and a space replaces tabs and line breaks.

    Args:
        kind: `csv` or `tsv`.
        columns: Names of the input's columns.
        names: Names of the columns of label, score, review and probabilities.
    """

    def __init__(self, kind: str, columns: Sequence[str], names: Sequence[str]) -> None:
        self._kind = kind
        self._columns = [*columns, *names]
        self._names = names
        self.header = self._format_lines([self._columns])

    def encode(self, window: Window, answers: Answers) -> bytes:
        """Return the encoded rows of a window."""
        rows = _add_answers(window.rows, self._names, answers)
        return self._format_lines([[_format_field(row.get(name)) for name in self._columns] for row in rows])

    def finish(self, encoded: Path) -> Path:
        """Return the file unchanged."""
        return encoded

    def _format_lines(self, lines: Sequence[Sequence[Any]]) -> bytes:
        if self._kind == "tsv":
            return to_bytes("".join("\t".join(map(_to_one_line, line)) + "\n" for line in lines))
        stream = io.StringIO(newline="")
        plain, quoted = (
            csv.writer(stream, lineterminator="\n", quoting=quoting) for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
        )
        for line in lines:
            # With this line terminator, the csv module does not quote carriage returns.
            has_return = any(isinstance(field, str) and "\r" in field for field in line)
            (quoted if has_return else plain).writerow(line)
        return to_bytes(stream.getvalue())


def _to_one_line(field: Any) -> str:
    return "" if field is None else re.sub(r"[\t\r\n]+", " ", str(field))


def make(kind: str, columns: Sequence[str], schema: Any, names: Sequence[str]) -> Encoding:
    """Return the encoding of an output's format.

    Args:
        kind: `csv`, `tsv`, `jsonl` or `parquet`.
        columns: Names of the input's columns.
        schema: Their Arrow schema if the format is parquet.
        names: Names of the columns of label, score, review and probabilities.
    """
    if kind == "parquet":
        return ParquetEncoding(schema, names)
    if kind == "jsonl":
        return JsonLinesEncoding(names)
    return CsvEncoding(kind, columns, names)


def to_bytes(text: str) -> bytes:
    """Encode as UTF-8; a lone surrogate, which JSON input may hold, becomes a JSON escape."""
    return text.encode("utf-8", "backslashreplace")


def _add_answers(rows: Sequence[Row], names: Sequence[str], answers: Answers) -> list[Row]:
    return [
        row | dict(zip(names, values, strict=True))
        for row, values in zip(rows, zip(*answers, strict=True), strict=True)
    ]


def _format_field(value: Any) -> Any:
    if isinstance(value, (dict, list, bool)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value
