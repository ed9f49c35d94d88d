"""Readers of csv, tsv, json, jsonl and parquet files, plain or compressed, by their detected form.

This module is independent of labels and models: a file is a sequence of mappings from column to value. Text files are
UTF-8 or UTF-16. Errors name the line.
"""

import gzip
import itertools
import json
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from newsbert.core.installation import MissingExtraError
from newsbert.data import delimited, file_form, json_rows
from newsbert.data.file_form import FORMATS, FileForm, format_of
from newsbert.data.lines import Lines, Row, RowError, Sized, Tally
from newsbert.data.row_columns import UNREADABLE
from newsbert.errors import DataError, UsageError

__all__ = [
    "FORMATS",
    "Row",
    "RowError",
    "RowFile",
    "Sized",
    "columns",
    "format_of",
    "iterate",
    "read",
    "reading",
    "stream",
]

_PARQUET_ROWS = 8192


class RowFile:
    """A file of rows.

    Args:
        path: The file.

    Attributes:
        path: The file.
        form: Form of the file.

    Raises:
        UsageError: If there is no such file, or its suffix is of no known format.
        DataError: If the file cannot be read, or its content does not fit its name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        format_of(path)  # reports a wrong suffix before a missing file
        with reading(path):
            self.form: FileForm = file_form.inspect(path)
        self._notes: list[str] = []
        self._columns: list[str] | None = None

    def stream(self) -> Iterator[Sized]:
        """Yield the rows, and a `RowError` for every row that cannot be read.

        A json document is in memory while its rows are yielded. Other files are read row by row.

        Raises:
            DataError: If the file is broken so that the boundaries of its rows are unclear.
        """
        if self.form.format == "parquet":
            yield from ((row, 0) for row in self._read_parquet())
            return
        tally, notes = Tally(), list(self.form.notes)
        with reading(self.path), file_form.opened(self.path, self.form.compression, self.form.member) as opened:
            lines = Lines(self.path, opened, self.form)
            if self.form.dialect is not None:
                yield from delimited.read(self.path, self.form.dialect, lines, tally)
            elif self.form.format == "json":
                yield from json_rows.read_document(self.path, lines, notes)
            else:
                yield from json_rows.read_lines(lines)
        self._notes = [*notes, *tally.notes()]

    def rows(self) -> Iterator[Row]:
        """Yield the rows.

        Raises:
            DataError: If the file is empty, or rows cannot be read; the message has the first line and their number.
        """
        empty, fault, alike = True, None, 0
        for record, _ in self.stream():
            if not isinstance(record, RowError):
                empty = False
                if fault is None:
                    yield record
            elif not record.repeats_header:
                alike += fault is not None
                fault = fault or record
        if fault is not None:
            raise fault.error(self.path, alike)
        if empty:
            raise DataError(f"{self.path} has no rows", "give a file with at least a few labelled rows for every class")

    def note(self) -> str | None:
        """Return a note on unusual properties of the file; complete after all rows were read."""
        notes = self._notes or self.form.notes
        return f"{self.path.name}: {', '.join(notes)}" if notes else None

    def columns(self) -> list[str]:
        """Return the columns of all rows; for JSON, this reads the whole file.

        Raises:
            DataError: If the file is empty, or a row cannot be read.
        """
        if self.form.format == "parquet":
            with self.parquet() as file:
                return list(file.schema_arrow.names)
        if self._columns is None:
            rows = itertools.islice(self.rows(), 1) if self.form.dialect is not None else self.rows()
            self._columns = columns(rows)
        return list(self._columns)

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """Return the class names by column, if `datasets` has stored them in a parquet file."""
        if self.form.format != "parquet":
            return {}
        with self.parquet() as file:
            metadata = (file.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
        try:
            features = json.loads(metadata)["info"]["features"].items()
            named = {column: feature["names"] for column, feature in features if feature.get("_type") == "ClassLabel"}
            return {str(column): tuple(map(str, names)) for column, names in named.items() if names}
        except (ValueError, KeyError, TypeError, AttributeError):
            return {}

    @contextmanager
    def parquet(self) -> Iterator[Any]:
        """Open the file as pyarrow's `ParquetFile`.

        Raises:
            MissingExtraError: If pyarrow is not installed.
            DataError: If it is broken.
        """
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise MissingExtraError("pyarrow", "train") from error
        with reading(self.path), tempfile.TemporaryFile() as unpacked:
            try:
                with file_form.opened(self.path, self.form.compression, self.form.member) as opened:
                    if self.form.compression:  # parquet is read from its end, a compressed file cannot be
                        shutil.copyfileobj(opened, unpacked)
                        unpacked.seek(0)
                    # Without a buffer size, the whole column of a row group is read at once.
                    yield pq.ParquetFile(unpacked if self.form.compression else opened, buffer_size=1 << 20)
            except (pa.ArrowException, ValueError, OverflowError) as error:  # the last two: invalid texts and dates
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                raise DataError(
                    f"{self.path}: not a readable parquet file: {reason}", "write the file again"
                ) from error

    def _read_parquet(self) -> Iterator[Row]:
        with self.parquet() as file:
            names = file.schema_arrow.names
            for batch in file.iter_batches(_PARQUET_ROWS):
                try:
                    yield from batch.to_pylist()
                except (ValueError, OverflowError):
                    for row in zip(*map(cells, batch.columns), strict=True):
                        yield dict(zip(names, row, strict=True))


def cells(column: Any) -> list[Any]:
    """Return the values of an Arrow column, with `UNREADABLE` for values that Python cannot represent."""
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError):
        if len(column) == 1:
            return [UNREADABLE]
    half = len(column) // 2
    return [*cells(column.slice(0, half)), *cells(column.slice(half))]


def read(path: Path) -> list[Row]:
    """Return the rows of a file; raise the errors of `iterate`."""
    return list(iterate(path))


def iterate(path: Path) -> Iterator[Row]:
    """Yield the rows of a file.

    Raises:
        UsageError: If there is no such file, or its suffix is of no known format.
        DataError: If the file is empty or broken; the message has the line.
    """
    yield from RowFile(path).rows()


def stream(path: Path) -> Iterator[Sized]:
    """Yield the rows of a file, and a `RowError` for every row that cannot be read; raise the errors of `RowFile`."""
    yield from RowFile(path).stream()


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Translate the errors of reading a file into errors for the user.

    Raises:
        UsageError: If there is no such file.
        DataError: If the file cannot be read, or is a broken gzip file.
    """
    try:
        if not path.is_file():
            raise UsageError(f"no such file: {str(path)!r}", "check the path")
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: broken gzip file: {error}", "fetch or write the file again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}", "check the file and its rights") from error


def columns(rows: Iterable[Row]) -> list[str]:
    """Return the columns of all rows, in the order of their first appearance."""
    return list(dict.fromkeys(str(name) for row in rows for name in row))
