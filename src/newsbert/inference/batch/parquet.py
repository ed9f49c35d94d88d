"""Parquet files: read in windows, and written with column types that fit all rows.

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
"""Bounds of a row group in the output."""


def pyarrow() -> Any:
    """Import and return the package.

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
        as_table: Whether windows hold tables, with rows of `text_columns` only; otherwise they hold whole rows.

    Attributes:
        schema: The file's Arrow schema.
        text_columns: Names of the columns of the rows if windows hold tables.

    Raises:
        DataError: If the file is broken or empty.
    """

    def __init__(self, file: RowFile, as_table: bool) -> None:
        self._file = file
        self._as_table = as_table
        self.text_columns: list[str] = []
        with file.parquet() as parquet_file:
            self.schema = parquet_file.schema_arrow
            self.total: int = parquet_file.metadata.num_rows
            groups = [parquet_file.metadata.row_group(number) for number in range(parquet_file.metadata.num_row_groups)]
            row_bytes = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
        self._batch_rows = min(WINDOW_ROWS, max(1, WINDOW_CHARS // max(1, row_bytes)))
        self.columns: list[str] = list(self.schema.names)
        if len(set(self.columns)) < len(self.columns):
            names = ", ".join(self.columns)
            raise DataError(f"{file.path}: two columns have the same name: {names}", "rename one of them")
        if not self.total:
            raise no_rows(file.path)

    def windows(self, skip: int = 0) -> Iterator[Window]:
        """Yield the windows after the first `skip` rows."""
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
                if rows >= WINDOW_ROWS or sum(pending.nbytes for pending in batches) >= WINDOW_CHARS:
                    yield self._to_window(pa.Table.from_batches(batches))
                    batches, rows = [], 0
            if batches:
                yield self._to_window(pa.Table.from_batches(batches))

    def _to_window(self, table: Any) -> Window:
        if not self._as_table:
            return Window(_to_rows(table))
        columns = [cells(table.column(name)) for name in self.text_columns]
        return Window([dict(zip(self.text_columns, row, strict=True)) for row in zip(*columns, strict=True)], table)


def _to_rows(table: Any) -> list[Row | RowError]:
    """Return the rows of a table; a row with a value that Python cannot represent becomes a `RowError`."""
    try:
        return list(table.to_pylist())
    except (ValueError, OverflowError) as error:  # such as a date, or bytes that are no text
        if len(table) == 1:
            return [RowError("", f"not readable: {error}", "write it again", "")]
    half = len(table) // 2
    return [*_to_rows(table.slice(0, half)), *_to_rows(table.slice(half))]


def row(table: Any, place: int, known: Row) -> Row:
    """Return a row of a table, or its `known` part if Python cannot represent all of its values."""
    (result,) = _to_rows(table.slice(place, 1))
    return known if isinstance(result, RowError) else result


def schema_of(source: Source, kind: str) -> Any:
    """Return the Arrow schema of a text file's rows.

    Args:
        source: The file.
        kind: Format of the file; values in csv and tsv are text.

    Raises:
        DataError: If a column holds values that no type can hold.
    """
    pa = pyarrow()
    if kind == "csv":
        return pa.schema([(name, pa.string()) for name in source.columns])
    schema = pa.schema([(name, pa.null()) for name in source.columns])
    with _check_fit():
        for window in source.windows():
            window_schema = pa.schema(
                [(name, pa.array(_get_column(window.rows, name)).type) for name in source.columns]
            )
            schema = pa.unify_schemas([schema, window_schema], promote_options="permissive")
        pa.parquet.ParquetWriter(io.BytesIO(), schema).close()  # parquet does not support every Arrow type
        for window in source.windows():
            _to_table(window.rows, schema)  # a number may not fit the type that later rows require
    return schema


def answered(window: Window, schema: Any, names: Sequence[str], answers: Sequence[Sequence[Any]]) -> bytes:
    """Return a window's rows with its predictions as an Arrow stream.

    Args:
        window: The rows.
        schema: Arrow schema of their columns.
        names: Names of the columns of label, score, review, probabilities and, if requested, tier.
        answers: Values of these columns.
    """
    pa = pyarrow()
    with _check_fit():
        table = _to_table(window.rows, schema) if window.table is None else window.table
        # Probabilities are JSON text: labels may differ from file to file, column types should not.
        label, score, review, probabilities, *tier = answers
        texts = [None if value is None else json.dumps(value, ensure_ascii=False) for value in probabilities]
        kinds = (pa.string(), pa.float64(), pa.bool_(), pa.string(), *(pa.string() for _ in tier))
        for name, values, kind in zip(names, (label, score, review, texts, *tier), kinds, strict=True):
            table = table.append_column(pa.field(name, kind), pa.array(values, kind))
        target = io.BytesIO()
        with pa.ipc.new_stream(target, table.schema) as writer:
            writer.write_table(table)
        return target.getvalue()


def write_parquet(streams: Path, output: Path) -> None:
    """Convert a file of concatenated Arrow streams to a parquet file."""
    pa = pyarrow()
    with _check_fit(), pa.OSFile(str(streams)) as file:
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


def _to_table(rows: Sequence[Row], schema: Any) -> Any:
    pa = pyarrow()
    columns = [pa.array(_get_column(rows, field.name), field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _get_column(rows: Sequence[Row], name: str) -> list[Any]:
    return [row.get(name) for row in rows]


@contextmanager
def _check_fit() -> Iterator[None]:
    """Raise an error for the user if rows do not fit a parquet file.

    Raises:
        DataError: If they do not fit.
    """
    pa = pyarrow()
    try:
        yield
    except (pa.ArrowException, ValueError, OverflowError) as error:  # such as numbers and texts in one column
        raise DataError(f"these rows do not fit a parquet file: {error}", "write .jsonl or .csv") from error
