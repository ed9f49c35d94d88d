"""Classifying the rows of a file into another file."""

import csv
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from newsbert import rows as row_files
from newsbert.errors import BadRequestError, DataError, MissingExtraError, NewsbertError, UsageError
from newsbert.model import Prediction
from newsbert.rows import Row
from newsbert.text import NewsItem, prepare

ANSWER_COLUMNS = ("label", "score", "probabilities")
_CHUNK_ROWS = 512


class Predictor(Protocol):
    """A model here (`newsbert.Model`) or on a server (`client.Client`)."""

    name: str

    def predict(self, items: Sequence[NewsItem]) -> list[Prediction]:
        """Classify texts or title/text objects, in their order."""
        ...


@dataclass(frozen=True)
class Done:
    """What was written: rows, those of them without an answer, and the names of the columns added."""

    rows: int
    skipped: int
    columns: tuple[str, ...]


def check(file: Path, output: Path) -> None:
    """Refuse an output that cannot be written before any work is done.

    Raises:
        UsageError: If a name tells no format, or the directory is not there.
    """
    row_files.format_of(file)
    if row_files.format_of(output) != output.suffix.lower().lstrip(".").replace("ndjson", "jsonl").replace(
        "pq", "parquet"
    ):
        raise UsageError(f"{str(output)!r} cannot be written", "name it .csv, .tsv, .json, .jsonl or .parquet, plain")
    try:
        has_parent, is_directory = output.resolve().parent.is_dir(), output.is_dir()
    except (OSError, RuntimeError) as error:  # the latter of a loop of links
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{str(output)!r} cannot be written: {reason}", "name another file") from error
    if not has_parent:
        raise UsageError(f"no such directory: {str(output.parent)!r}", f"mkdir -p {output.parent}")
    if is_directory:
        raise UsageError(f"{str(output)!r} is a directory", "name a file")


def predict_items(predictor: Predictor, items: Sequence[NewsItem]) -> list[Prediction]:
    """Classify what a user typed.

    Raises:
        BadRequestError: If an item is no text; the message says which.
    """
    for number, item in enumerate(items, 1):
        try:
            prepare(item)
        except ValueError as error:
            where = f"text {number}: " if len(items) > 1 else ""
            raise BadRequestError(f"{where}{error}", "give a text with at least one word") from error
    return predictor.predict(items)


def predict_file(
    predictor: Predictor,
    file: Path,
    output: Path,
    text_column: str | None,
    on_progress: Callable[[int, int], None],
) -> Done:
    """Classify every row of `file` and write it, all its columns kept, with the answer to `output`.

    Rows without text get an empty answer. The output appears whole or not at all.

    Args:
        predictor: The model.
        file: Rows in a format of `rows.FORMATS`.
        output: A file in one of these formats.
        text_column: Column of the text, if it is not `text` (or `title` with `text` or `description`).
        on_progress: Called with rows done and rows in all.

    Raises:
        DataError: If the file cannot be read or has no such column.
        NewsbertError: If the output cannot be written.
    """
    rows = row_files.read(file)
    given = row_files.columns(rows)
    text_columns = _text_columns(given, text_column)
    items = [_item(row, text_columns) for row in rows]
    columns = _answer_columns(given)
    skipped = 0
    for start in range(0, len(rows), _CHUNK_ROWS):
        chunk = range(start, min(start + _CHUNK_ROWS, len(rows)))
        answerable = [index for index in chunk if items[index] is not None]
        texts = [item for item in (items[index] for index in answerable) if item is not None]
        predictions = predictor.predict(texts) if texts else []
        answers: dict[int, Prediction] = dict(zip(answerable, predictions, strict=True))
        skipped += len(chunk) - len(answerable)
        for index in chunk:
            answer = answers[index].to_dict() if index in answers else dict.fromkeys(ANSWER_COLUMNS)
            rows[index].update(zip(columns, (answer[name] for name in ANSWER_COLUMNS), strict=True))
        on_progress(chunk.stop, len(rows))
    partial = output.with_name(f".{output.name}.partial-{os.getpid()}")
    try:
        _write(rows, (*given, *columns), partial, row_files.format_of(output))
        partial.replace(output)
    except OSError as error:
        raise NewsbertError(
            f"{output} cannot be written: {error.strerror or error}", "check the disk: df -h ."
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()
    return Done(len(rows), skipped, columns)


def _answer_columns(given: Sequence[str]) -> tuple[str, ...]:
    """Names for the answer's columns under which none of the given columns is lost."""
    columns: tuple[str, ...] = ANSWER_COLUMNS
    while set(columns) & set(given):
        columns = tuple(f"predicted_{name}" for name in columns)
    return columns


def _text_columns(given: Sequence[str], wanted: str | None) -> tuple[str | None, str]:
    """The columns of title (if any) and text.

    Raises:
        DataError: If there is no such column.
    """
    column = wanted or next((name for name in ("text", "description") if name in given), None)
    if column is None or column not in given:
        raise DataError(
            f"no column {wanted or 'text'!r}; the columns are: {', '.join(given)}", "name it with --text-column"
        )
    return ("title" if wanted is None and "title" in given else None), column


def _item(row: Row, columns: tuple[str | None, str]) -> NewsItem | None:
    """A row as the model takes it, or `None` if it has no text."""
    title, column = columns
    text = row.get(column)
    item: Any = text if title is None else {"title": row.get(title) or "", "text": text or ""}
    try:
        prepare(item)
    except ValueError:
        return None
    accepted: NewsItem = item
    return accepted


def _write(rows: Sequence[Row], columns: tuple[str, ...], file: Path, kind: str) -> None:
    """Write rows whose last column is that of the probabilities; a row may lack any of the others."""
    probabilities = columns[-1]
    if kind == "parquet":
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise MissingExtraError("pyarrow", "train") from error
        # Probabilities go as JSON text: labels may differ from file to file, columns of a type should not.
        table = {name: [row.get(name) for row in rows] for name in columns}
        table[probabilities] = [
            None if value is None else json.dumps(value, ensure_ascii=False) for value in table[probabilities]
        ]
        try:
            pq.write_table(pa.table(table), str(file))
        except (pa.ArrowException, ValueError, OverflowError) as error:  # such as numbers and texts in one column
            raise DataError(f"these rows do not fit a parquet file: {error}", "write .jsonl or .csv") from error
        return
    # A lone surrogate, which JSON input may hold, is written as JSON escapes it.
    with file.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        if kind == "json":
            json.dump(list(rows), stream, ensure_ascii=False, indent=1, default=str)
        elif kind == "jsonl":
            stream.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
        else:
            # With this line terminator the module does not see that a carriage return needs quotes.
            returns = any("\r" in value for row in rows for value in (*row, *row.values()) if isinstance(value, str))
            writer = csv.DictWriter(
                stream,
                columns,
                delimiter="\t" if kind == "tsv" else ",",
                lineterminator="\n",
                quoting=csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL,
                restval="",
            )
            writer.writeheader()
            writer.writerows(_flat(row, probabilities) for row in rows)


def _flat(row: Row, probabilities: str) -> Row:
    """A row as csv can hold it."""
    value = row[probabilities]
    return {**row, probabilities: "" if value is None else json.dumps(value, ensure_ascii=False)}
