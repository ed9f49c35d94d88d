"""Parquet: reading it in windows, and writing rows with the column types that all of them fit.

pyarrow comes with an extra; nothing here imports it before a parquet file is named.
"""

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from newsbert.core.installation import MissingExtraError
from newsbert.data.lines import Row, RowError
from newsbert.data.readers import RowFile, cells
from newsbert.errors import DataError
from newsbert.inference.batch.readers import WINDOW_CHARS, WINDOW_ROWS, Source, Window, no_rows

_GROUP_ROWS, _GROUP_BYTES = 1 << 15, 16 << 20
"""Bounds of a row group of what is written."""


def pyarrow() -> Any:
    """The package.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "train") from error
    return pa


class ParquetSource:
    """A parquet file.

    Args:
        file: The file.
        as_table: Whether windows hold tables, and of rows only `text_columns`; they hold whole rows otherwise.

    Attributes:
        schema: The file's Arrow schema.
        text_columns: Names of the columns that rows hold where windows hold tables.

    Raises:
        DataError: If it is broken or empty.
    """

    def __init__(self, file: RowFile, as_table: bool) -> None:
        self._file = file
        self._as_table = as_table
        self.text_columns: list[str] = []
        with file.parquet() as opened:
            self.schema = opened.schema_arrow
            self.total: int = opened.metadata.num_rows
            groups = [opened.metadata.row_group(number) for number in range(opened.metadata.num_row_groups)]
            row_bytes = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
        self._batch_rows = min(WINDOW_ROWS, max(1, WINDOW_CHARS // max(1, row_bytes)))
        self.columns: list[str] = list(self.schema.names)
        if len(set(self.columns)) < len(self.columns):
            names = ", ".join(self.columns)
            raise DataError(f"{file.path}: two columns have the same name: {names}", "rename one of them")
        if not self.total:
            raise no_rows(file.path)

    def windows(self, skip: int = 0) -> Iterator[Window]:
        """Yield the rows behind the first `skip`."""
        pa = pyarrow()
        batches: list[Any] = []
        rows = 0
        with self._file.parquet() as file:
            for read in file.iter_batches(batch_size=self._batch_rows):
                batch = read.slice(min(skip, read.num_rows))
                skip -= read.num_rows - batch.num_rows
                if not batch.num_rows:
                    continue
                batches.append(batch)
                rows += batch.num_rows
                # Row groups may be smaller than a window.
                if rows >= WINDOW_ROWS or sum(each.nbytes for each in batches) >= WINDOW_CHARS:
                    yield self._window(pa.Table.from_batches(batches))
                    batches, rows = [], 0
            if batches:
                yield self._window(pa.Table.from_batches(batches))

    def _window(self, table: Any) -> Window:
        if not self._as_table:
            return Window(_rows(table))
        columns = [cells(table.column(name)) for name in self.text_columns]
        return Window([dict(zip(self.text_columns, row, strict=True)) for row in zip(*columns, strict=True)], table)


def _rows(table: Any) -> list[Row | RowError]:
    """The rows of a table; those with a value that Python does not know are faults."""
    try:
        return list(table.to_pylist())
    except (ValueError, OverflowError) as error:  # such as a date, or bytes that are no text
        if len(table) == 1:
            return [RowError("", f"not readable: {error}", "write it again", "")]
    half = len(table) // 2
    return [*_rows(table.slice(0, half)), *_rows(table.slice(half))]


def row(table: Any, place: int, known: Row) -> Row:
    """A row of a table, or what is known of it if Python does not know all of its values."""
    (found,) = _rows(table.slice(place, 1))
    return known if isinstance(found, RowError) else found


def schema_of(source: Source, kind: str) -> Any:
    """The Arrow schema of a text file's rows.

    Args:
        source: The file.
        kind: Its format; values in csv and tsv are text.

    Raises:
        DataError: If a column holds values that no type can hold.
    """
    pa = pyarrow()
    if kind == "csv":
        return pa.schema([(name, pa.string()) for name in source.columns])
    schema = pa.schema([(name, pa.null()) for name in source.columns])
    with _fitting():
        for window in source.windows():
            found = pa.schema([(name, pa.array(_column(window.rows, name)).type) for name in source.columns])
            schema = pa.unify_schemas([schema, found], promote_options="permissive")
        pa.parquet.ParquetWriter(io.BytesIO(), schema).close()  # not every Arrow type is one of parquet's
        for window in source.windows():
            _table(window.rows, schema)  # a number may not fit the type that later rows call for
    return schema


def answered(window: Window, schema: Any, names: Sequence[str], answers: Sequence[Sequence[Any]]) -> bytes:
    """A window's rows with its answers as an Arrow stream.

    Args:
        window: The rows.
        schema: Of the columns that they have.
        names: Of the columns of label, score, review and probabilities.
        answers: These columns.
    """
    pa = pyarrow()
    with _fitting():
        table = _table(window.rows, schema) if window.table is None else window.table
        # Probabilities go as JSON text: labels may differ from file to file, columns of a type should not.
        label, score, review, probabilities = answers
        texts = [None if value is None else json.dumps(value, ensure_ascii=False) for value in probabilities]
        kinds = (pa.string(), pa.float64(), pa.bool_(), pa.string())
        for name, values, kind in zip(names, (label, score, review, texts), kinds, strict=True):
            table = table.append_column(pa.field(name, kind), pa.array(values, kind))
        target = io.BytesIO()
        with pa.ipc.new_stream(target, table.schema) as writer:
            writer.write_table(table)
        return target.getvalue()


def write_parquet(streams: Path, output: Path) -> None:
    """Turn a file of Arrow streams, one behind another, into a parquet file."""
    pa = pyarrow()
    with _fitting(), pa.OSFile(str(streams)) as file:
        writer = None
        group: list[Any] = []
        try:
            while file.tell() < file.size():
                group.append(pa.ipc.open_stream(file).read_all())
                writer = writer or pa.parquet.ParquetWriter(str(output), group[0].schema)
                if sum(map(len, group)) >= _GROUP_ROWS or sum(table.nbytes for table in group) >= _GROUP_BYTES:
                    writer.write_table(pa.concat_tables(group))
                    group = []
            if group and writer is not None:
                writer.write_table(pa.concat_tables(group))
        finally:
            if writer is not None:
                writer.close()


def _table(rows: Sequence[Row], schema: Any) -> Any:
    pa = pyarrow()
    columns = [pa.array(_column(rows, field.name), field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _column(rows: Sequence[Row], name: str) -> list[Any]:
    return [row.get(name) for row in rows]


@contextmanager
def _fitting() -> Iterator[None]:
    """Tell whose rows fit no parquet file that they do not.

    Raises:
        DataError: If they do not.
    """
    pa = pyarrow()
    try:
        yield
    except (pa.ArrowException, ValueError, OverflowError) as error:  # such as numbers and texts in one column
        raise DataError(f"these rows do not fit a parquet file: {error}", "write .jsonl or .csv") from error
