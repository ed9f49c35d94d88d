"""Reading files of rows: csv, tsv, json, jsonl or parquet, plain or gzipped.

Nothing here knows of labels or models: a file is a sequence of mappings from column to value. Text files are UTF-8
(with or without a byte order mark), and a fault is reported with the line it stands in.
"""

import csv
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from newsbert.errors import DataError, MissingExtraError, UsageError

Row = dict[str, Any]
FORMATS = ("csv", "tsv", "json", "jsonl", "parquet")
AG_NEWS_COLUMNS = ("class", "title", "description")
"""The columns of AG News's own file, which has no header: classes 1 to 4, title, description."""


def format_of(path: Path) -> str:
    """Return the format that the file's name tells, such as `csv` for `rows.csv.gz`.

    Raises:
        UsageError: If the name ends in none of the known formats.
    """
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix.lstrip(".")
    suffix = {"ndjson": "jsonl", "pq": "parquet"}.get(suffix, suffix)
    if suffix not in FORMATS:
        raise UsageError(
            f"{str(path)!r} is of no known format", f"name it .{', .'.join(FORMATS)}, or one of these with .gz"
        )
    return suffix


def read(path: Path) -> list[Row]:
    """Return the rows of a file.

    Raises:
        UsageError: If there is no such file, or its name tells no known format.
        DataError: If the file is empty or broken; the message has the line.
    """
    kind = format_of(path)
    try:
        if not path.is_file():
            raise UsageError(f"no such file: {str(path)!r}", "check the path")
        if kind == "parquet":
            rows = _read_parquet(path)
        else:
            with _open(path) as stream:
                readers = {"csv": _read_csv, "tsv": _read_csv, "json": _read_json, "jsonl": _read_jsonl}
                rows = readers[kind](path, stream)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: broken gzip file: {error}", "fetch or write the file again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}", "check the file and its rights") from error
    if not rows:
        raise DataError(f"{path} has no rows", "give a file with at least a few labelled rows for every class")
    return rows


def columns(rows: Iterable[Row]) -> list[str]:
    """The columns that any of the rows has, in the order in which they first appear."""
    return list(dict.fromkeys(str(name) for row in rows for name in row))


def _open(path: Path) -> BinaryIO:
    """Open a file for bytes, unpacked if its name ends in `.gz`."""
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _lines(path: Path, stream: BinaryIO) -> Iterator[str]:
    """Yield the decoded lines, ends kept, so that a decoding fault can name its line."""
    for number, line in enumerate(stream, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}, line {number}: not valid UTF-8 (byte 0x{line[error.start]:02x}, position {error.start + 1})",
                f"convert it: iconv -f latin1 -t utf-8 {path.name} > utf8-{path.name}",
            ) from error


def _read_csv(path: Path, stream: BinaryIO) -> list[Row]:
    csv.field_size_limit(2**31 - 1)
    delimiter = "\t" if format_of(path) == "tsv" else ","
    reader = csv.reader(_lines(path, stream), delimiter=delimiter, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            return []
        rows = []
        if _is_ag_news(header):
            rows.append(dict(zip(AG_NEWS_COLUMNS, header, strict=True)))
            header = list(AG_NEWS_COLUMNS)
        if len(set(header)) < len(header):
            raise DataError(f"{path}: two columns have the same name: {', '.join(header)}", "rename one of them")
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(header):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(fields)} fields, but the header has {len(header)}",
                    "quote fields that hold the delimiter, a quote or a line break",
                )
            rows.append(dict(zip(header, fields, strict=True)))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}", "quote fields as RFC 4180 says") from error
    return rows


def _is_ag_news(first: list[str]) -> bool:
    """Tell AG News's headerless form by its first row: a class from 1 to 4, a title and a description."""
    return len(first) == len(AG_NEWS_COLUMNS) and first[0] in {"1", "2", "3", "4"}


def _read_jsonl(path: Path, stream: BinaryIO) -> list[Row]:
    rows = []
    for number, line in enumerate(_lines(path, stream), 1):
        if line.strip():
            rows.append(_object(path, f"line {number}", _parse(path, line.strip(), number)))
    return rows


def _read_json(path: Path, stream: BinaryIO) -> list[Row]:
    content = "".join(_lines(path, stream))
    if not content.strip():
        return []
    values = _parse(path, content, 1)
    if not isinstance(values, list):
        raise DataError(f"{path}: expected a list of objects", "write [{…}, {…}], or name a file of lines .jsonl")
    return [_object(path, f"item {index}", value) for index, value in enumerate(values)]


def _parse(path: Path, content: str, line: int) -> Any:
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {line + error.lineno - 1}: not valid JSON: {error.msg}", "mend it") from error
    except ValueError as error:  # a number of more digits than Python turns into an int
        raise DataError(f"{path}, line {line}: not readable JSON: {error}", "mend it") from error
    except RecursionError as error:
        raise DataError(f"{path}, line {line}: JSON nested too deep", "write flat objects") from error


def _object(path: Path, where: str, value: Any) -> Row:
    if not isinstance(value, dict):
        raise DataError(f"{path}, {where}: expected an object, got {type(value).__name__}", "write one object a row")
    return value


def _read_parquet(path: Path) -> list[Row]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow", "train") from error
    try:
        with _open(path) as stream:
            return list(pq.read_table(stream).to_pylist())
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # the latter: no text, no date
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"{path}: not a readable parquet file: {reason}", "write the file again") from error
