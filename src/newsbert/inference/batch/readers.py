"""Reading of a file's rows in windows that fit into memory, always the same windows for the same file."""

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
"""Bounds of a window. A window is sorted by length as a whole, and is lost if the process is killed."""


@dataclass(frozen=True)
class Window:
    """Rows that are in memory at once.

    Attributes:
        records: All rows in order, or the reasons why they cannot be read. With a `table`, they have the text columns
            only.
        table: Arrow table of the rows, if a parquet file is written to another one.
    """

    records: list[Row | RowError]
    table: Any = None

    @property
    def rows(self) -> list[Row]:
        """The rows that can be read."""
        return [record for record in self.records if not isinstance(record, RowError)]


class Source(Protocol):
    """A file that was scanned once.

    Attributes:
        columns: Columns of all its rows, in order of first appearance.
        total: Number of its rows, unreadable ones included.
    """

    columns: list[str]
    total: int

    def windows(self, skip: int = 0) -> Iterator[Window]:
        """Yield the windows after the first `skip` rows, which must make up whole windows."""
        ...


class TextSource:
    """A csv, tsv, json or jsonl file.

    Args:
        file: The file. It is read once from start to end, since its last row may add a column.

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
        """Yield the windows after the first `skip` rows."""
        records: list[Row | RowError] = []
        chars_left = WINDOW_CHARS
        for record, size in islice(self._file.stream(), skip, None):
            records.append(record)
            chars_left -= size
            if len(records) == WINDOW_ROWS or chars_left < 0:
                yield Window(records)
                records, chars_left = [], WINDOW_CHARS
        if records:
            yield Window(records)


def no_rows(path: Path) -> DataError:
    """Return the error for a file without rows."""
    return DataError(f"{path} has no rows", "give a file with at least one")
