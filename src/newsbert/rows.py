"""Reading files of rows: csv, tsv, json, jsonl or parquet, plain or gzipped.

Nothing here knows of labels or models: a file is a sequence of mappings from column to value. Text files are UTF-8
(with or without a byte order mark), and a fault is reported with the line it stands in.
"""

import csv
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from newsbert.errors import DataError, MissingExtraError, UsageError

Row = dict[str, Any]
FORMATS = ("csv", "tsv", "json", "jsonl", "parquet")
AG_NEWS_COLUMNS = ("class", "title", "description")
"""The columns of AG News's own file, which has no header: classes 1 to 4, title, description."""

_PARQUET_ROWS = 8192
_FIELD_CHARS = 64 << 20  # beyond that, a quote was not closed: the rest of a large file is not to be held in memory
_CSV_UNCLOSED = ("unexpected end of data", f"field larger than field limit ({_FIELD_CHARS})")


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


@dataclass(frozen=True)
class Fault:
    r"""A row that is none, in a file whose other rows can be read.

    Attributes:
        where: Its place, such as `line 7`.
        reason: What is wrong with it.
        hint: What to do about it.
        content: The row as it stands in the file; bytes that are no UTF-8 as `\xe9`.
    """

    where: str
    reason: str
    hint: str
    content: str

    def error(self, path: Path) -> DataError:
        """The error for whom a file with such a row is of no use."""
        return DataError(f"{path}, {self.where}: {self.reason}", self.hint)


Sized = tuple[Row | Fault, int]
"""A row and how many characters it has in its file."""


def read(path: Path) -> list[Row]:
    """Return the rows of a file; raises what `iterate` does."""
    return list(iterate(path))


def iterate(path: Path) -> Iterator[Row]:
    """Yield the rows of a file one by one.

    Raises:
        UsageError: If there is no such file, or its name tells no known format.
        DataError: If the file is empty or broken; the message has the line.
    """
    empty = True
    if format_of(path) == "parquet":
        with reading(path):
            for row in _read_parquet(path):
                empty = False
                yield row
    else:
        for found, _ in stream(path):
            if isinstance(found, Fault):
                raise found.error(path)
            empty = False
            yield found
    if empty:
        raise DataError(f"{path} has no rows", "give a file with at least a few labelled rows for every class")


def stream(path: Path) -> Iterator[Sized]:
    """Yield the rows of a csv, tsv, json or jsonl file one by one, and a `Fault` for each that cannot be read.

    A json file is held in memory while its rows are yielded; of the others, no more than a row is.

    Raises:
        UsageError: If there is no such file.
        DataError: If the file is broken in a way that leaves unclear where its rows are.
    """
    readers = {"csv": _read_csv, "tsv": _read_csv, "json": _read_json, "jsonl": _read_jsonl}
    with reading(path), open_plain(path) as opened:
        yield from readers[format_of(path)](path, opened)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what may go wrong with reading a file into an error for the user.

    Raises:
        UsageError: If there is no such file.
        DataError: If it cannot be read, or is a broken gzip file.
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
    """The columns that any of the rows has, in the order in which they first appear."""
    return list(dict.fromkeys(str(name) for row in rows for name in row))


def open_plain(path: Path) -> BinaryIO:
    """Open a file for bytes, unpacked if its name ends in `.gz`."""
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value]


class _Lines:
    """The decoded lines of a file, ends kept.

    A line that cannot be decoded does not end the reading: it comes with its bytes escaped, and `fault` tells of it.

    Attributes:
        number: Of the line that was read last.
        size: Of the lines in `taken`, in characters.
        taken: The lines since `forget` was called: those of one row.
    """

    def __init__(self, path: Path, opened: BinaryIO) -> None:
        self._path = path
        self._opened = opened
        self._undecodable: tuple[str, str] | None = None
        self.number = 0
        self.size = 0
        self.taken: list[str] = []

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = next(self._opened)
        self.number += 1
        encoding = "utf-8-sig" if self.number == 1 else "utf-8"
        try:
            text = line.decode(encoding)
        except UnicodeDecodeError as error:
            byte, position = line[error.start], error.start + 1
            self._undecodable = f"line {self.number}", f"not valid UTF-8 (byte 0x{byte:02x}, position {position})"
            text = line.decode(encoding, "backslashreplace")
        self.taken.append(text)
        self.size += len(text)
        return text

    @property
    def first(self) -> int:
        """The number of the row's first line."""
        return self.number - len(self.taken) + 1

    def forget(self) -> None:
        """Begin another row."""
        self.taken.clear()
        self.size, self._undecodable = 0, None

    def undecodable(self) -> Fault | None:
        """What is wrong with the row if it is no UTF-8."""
        if self._undecodable is None:
            return None
        name = self._path.name
        return Fault(
            *self._undecodable, f"convert it: iconv -f latin1 -t utf-8 {name} > utf8-{name}", "".join(self.taken)
        )

    def fault(self, reason: str, hint: str, line: int | None = None) -> Fault:
        """What is wrong with the row, if not that it is no UTF-8."""
        return self.undecodable() or Fault(f"line {line or self.number}", reason, hint, "".join(self.taken))


def _read_csv(path: Path, opened: BinaryIO) -> Iterator[Sized]:
    csv.field_size_limit(_FIELD_CHARS)
    hint = "quote fields as RFC 4180 says"
    lines = _Lines(path, opened)
    reader = csv.reader(lines, delimiter="\t" if format_of(path) == "tsv" else ",", strict=True)
    header: list[str] | None = None
    while True:
        lines.forget()
        try:
            fields = next(reader, None)
        except csv.Error as error:
            # A quote that swallows the rest of a file is no fault of a row; one in the last line is.
            if len(lines.taken) > 1 and str(error) in _CSV_UNCLOSED:
                raise DataError(
                    f"{path}, line {lines.first}: a quote is opened there and never closed", hint
                ) from error
            fault = lines.fault(str(error), hint)
            if header is None:
                raise fault.error(path) from error
            yield fault, lines.size
            continue
        if fields is None:
            return
        undecodable = lines.undecodable()
        if header is None:
            if undecodable is not None:
                raise undecodable.error(path)
            header = _csv_header(path, fields)
            if header is fields:
                continue
        if undecodable is not None:
            yield undecodable, lines.size
        elif not fields:
            continue
        elif len(fields) == len(header):
            yield dict(zip(header, fields, strict=True)), lines.size
        else:
            reason = f"{len(fields)} fields, but the header has {len(header)}"
            yield lines.fault(reason, "quote fields that hold the delimiter, a quote or a line break"), lines.size


def _csv_header(path: Path, first: list[str]) -> list[str]:
    """The names of the columns: the first row, or those of AG News if it is a row of AG News."""
    header = list(AG_NEWS_COLUMNS) if _is_ag_news(first) else first
    if len(set(header)) < len(header):
        raise DataError(f"{path}: two columns have the same name: {', '.join(header)}", "rename one of them")
    return header


def _is_ag_news(first: list[str]) -> bool:
    """Tell AG News's headerless form by its first row: a class from 1 to 4, a title and a description."""
    return len(first) == len(AG_NEWS_COLUMNS) and first[0] in {"1", "2", "3", "4"}


def _read_jsonl(path: Path, opened: BinaryIO) -> Iterator[Sized]:
    lines = _Lines(path, opened)
    for line in lines:
        if line.strip():
            try:
                row: Row | Fault = lines.undecodable() or _object(_parse(line.strip()))
            except _NoRowError as error:
                row = lines.fault(*error.args)
            yield row, lines.size
        lines.forget()


def _read_json(path: Path, opened: BinaryIO) -> Iterator[Sized]:
    content = []
    lines = _Lines(path, opened)
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
        values = _parse(text)
    except _NoRowError as error:
        reason, hint, line_number = error.args
        raise Fault(f"line {line_number or 1}", reason, hint, "").error(path) from error
    if not isinstance(values, list):
        raise DataError(f"{path}: expected a list of objects", "write [{…}, {…}], or name a file of lines .jsonl")
    del content, text
    for index, value in enumerate(values):
        try:
            yield _object(value), 0
        except _NoRowError as error:
            reason, hint, _ = error.args
            yield Fault(f"item {index}", reason, hint, json.dumps(value)), 0


class _NoRowError(Exception):
    """What is no row: the reason, a hint, and the line if the text has several."""


def _parse(content: str) -> Any:
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        raise _NoRowError(
            f"not valid JSON: {error.msg}", "mend it", error.lineno if error.lineno > 1 else None
        ) from error
    except ValueError as error:  # a number of more digits than Python turns into an int
        raise _NoRowError(f"not readable JSON: {error}", "mend it", None) from error
    except RecursionError as error:
        raise _NoRowError("JSON nested too deep", "write flat objects", None) from error


def _object(value: Any) -> Row:
    if not isinstance(value, dict):
        raise _NoRowError(f"expected an object, got {type(value).__name__}", "write one object a row", None)
    return value


def _read_parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow", "train") from error
    try:
        with open_plain(path) as opened:
            for batch in pq.ParquetFile(opened).iter_batches(_PARQUET_ROWS):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # the latter: no text, no date
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"{path}: not a readable parquet file: {reason}", "write the file again") from error
