"""The rows of a file in windows that fit into memory, always the same windows for the same file."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from newsbert.data.lines import Row, RowError
from newsbert.data.readers import RowFile
from newsbert.errors import DataError

WINDOW_ROWS = 8192
WINDOW_CHARS = 16 << 20
"""Bounds of a window. It is what is sorted by length, and what is lost when the process is killed."""


@dataclass(frozen=True)
class Window:
    """Rows that are held at once.

    Attributes:
        records: Every row, or why it cannot be read, in order. Of a `table`, its columns of text alone.
        table: An Arrow table of the rows, where a parquet file goes into another.
    """

    records: list[Row | RowError]
    table: Any = None

    @property
    def rows(self) -> list[Row]:
        """The rows that can be read."""
        return [record for record in self.records if not isinstance(record, RowError)]


class Source(Protocol):
    """A file that was looked through once.

    Attributes:
        columns: Of all its rows, in the order in which they first appear.
        total: How many rows it has, those that cannot be read included.
    """

    columns: list[str]
    total: int

    def windows(self, skip: int = 0) -> Iterator[Window]:
        """Yield the rows behind the first `skip`, which are those of whole windows."""
        ...


class TextSource:
    """A csv, tsv, json or jsonl file.

    Args:
        file: The file; it is read once through, since its last row may have a column of its own.

    Raises:
        DataError: If no row can be read.
    """

    def __init__(self, file: RowFile) -> None:
        self._file = file
        self.total = 0
        columns: dict[str, None] = {}
        fault: RowError | None = None
        readable = 0
        for record, _ in file.stream():
            self.total += 1
            if isinstance(record, RowError):
                fault = fault or record
            else:
                readable += 1
                columns.update(dict.fromkeys(record))
        if not readable:
            raise fault.error(file.path, self.total - 1) if fault else no_rows(file.path)
        self.columns = list(columns)

    def windows(self, skip: int = 0) -> Iterator[Window]:
        """Yield the rows behind the first `skip`."""
        records: list[Row | RowError] = []
        room = WINDOW_CHARS
        for record, size in islice(self._file.stream(), skip, None):
            records.append(record)
            room -= size
            if len(records) == WINDOW_ROWS or room < 0:
                yield Window(records)
                records, room = [], WINDOW_CHARS
        if records:
            yield Window(records)


def no_rows(path: Path) -> DataError:
    """The error of a file that holds none."""
    return DataError(f"{path} has no rows", "give a file with at least one")
