"""A run over a file: read a window, answer it, keep it, until the output is whole."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from newsbert.bundle.bundle import sha256_of
from newsbert.core.version import __version__
from newsbert.data import readers as row_files
from newsbert.data import row_columns
from newsbert.data.lines import RowError
from newsbert.data.readers import RowFile
from newsbert.errors import DataError, ServingError
from newsbert.inference.batch import parquet, resume, writers
from newsbert.inference.batch.parquet import ParquetSource
from newsbert.inference.batch.predictor import Answer, Predictor, TextColumns, answer
from newsbert.inference.batch.ray_workers import Workers
from newsbert.inference.batch.readers import WINDOW_CHARS, WINDOW_ROWS, Source, TextSource, Window
from newsbert.inference.batch.resume import ResumeState
from newsbert.inference.prediction import Prediction

ANSWER_COLUMNS = ("label", "score", "review", "probabilities")


@dataclass(frozen=True)
class BatchResult:
    """What was written.

    Attributes:
        rows: Rows of the output.
        skipped: Those of them without an answer.
        columns: Names of the columns added.
        unreadable: Rows of the input that are none, and so are not in the output.
        rejected: The file with the rows that got no answer, and why; if there are any.
    """

    rows: int
    skipped: int
    columns: tuple[str, ...]
    unreadable: int = 0
    rejected: Path | None = None


def predict_file(  # noqa: PLR0913 - options by name
    predictor: Predictor | Workers,
    file: Path,
    output: Path,
    text_column: str | None,
    on_progress: Callable[[int, int], None],
    *,
    model: str | None = None,
    requests: int = 1,
    restart: bool = False,
    on_note: Callable[[str], None] = lambda note: None,
    likely_columns: Sequence[str | None] = (),
) -> BatchResult:
    """Classify every row of `file` and write it, all its columns kept, with the answer to `output`.

    Rows without text get an empty answer; they, and what cannot be read as a row, go to a file of rejected rows too.
    Memory does not grow with the file, unless it is json. The output appears whole or not at all. What is done when
    the process ends is kept beside it, and the same call goes on from there.

    Args:
        predictor: The model, here or in worker processes.
        file: Rows in a format of `rows.FORMATS`.
        output: A file in one of these formats.
        text_column: Column of the text, if it is not `text` (or `title` with `text` or `description`).
        on_progress: Called with rows done and rows in all.
        model: What tells the model from others, so that no output is of two; its name if not given.
        requests: How many to have under way at the same time, for a model on a server.
        restart: Whether to begin anew where something is kept.
        on_note: Called with what the user should know.
        likely_columns: Columns of the text that go before the usual one where they are there and none is named.

    Raises:
        DataError: If the file cannot be read, has no such column, or is changed meanwhile.
        NewsbertError: If the output cannot be written.
    """
    kind = row_files.format_of(output)
    before = _look(file)
    given = RowFile(file)
    source, schema = _open(given, kind)
    with row_files.reading(file):
        digest = sha256_of(file)
    wanted = row_columns.choose(source.columns, text_column, likely_columns)
    text_columns = row_columns.find_texts(source.columns, wanted, str(file))
    if isinstance(source, ParquetSource):
        source.text_columns = [name for name in text_columns if name is not None]
    names = _answer_columns(source.columns)
    encoded = writers.make(kind, source.columns, schema, names)
    job = {
        "input": [given.form.format, digest],
        "model": predictor.name if model is None else model,
        "text column": list(text_columns),
        "newsbert": [__version__, WINDOW_ROWS, WINDOW_CHARS, *ANSWER_COLUMNS],
    }
    with resume.opened(output, job, source.total, encoded.header, restart) as part:
        if note := given.note():
            on_note(note)
        if part.note:
            on_note(part.note)
        on_progress(part.kept.records, source.total)
        if isinstance(predictor, Workers):
            answered = predictor.answered(source, part.kept.records, text_columns)
        else:
            answered = _answered(predictor, source, part.kept.records, text_columns, requests, on_progress)
        for window, answers in answered:
            done = part.kept.records
            rows = encoded.encode(window, _columns(answers), first=part.kept.rows == 0)
            part.append(rows, _rejected(window, answers, done), _further(part.kept, window, answers))
            on_progress(part.kept.records, source.total)
        if _look(file) != before or part.kept.records != source.total:
            raise DataError(f"{file} was changed while it was read", "the same command with --restart begins anew")
        rejected = part.publish(encoded.finish)
        return BatchResult(part.kept.rows, part.kept.skipped, names, part.kept.unreadable, rejected)


def _answered(
    predictor: Predictor,
    source: Source,
    skip: int,
    text_columns: TextColumns,
    requests: int,
    on_progress: Callable[[int, int], None],
) -> Iterator[tuple[Window, list[Answer]]]:
    """Answer the windows behind the first `skip` rows in this process, one after the other.

    Raises:
        ServingError: If the model is another than it was.
    """
    name = predictor.name
    for window in source.windows(skip):

        def report(answered: int, start: int = skip, size: int = len(window.records)) -> None:
            if answered < size:  # the end of a window is told when it is kept
                on_progress(start + answered, source.total)

        answers = answer(predictor, window, text_columns, requests, report)
        if name != predictor.name and name:
            raise ServingError(
                f"the server's model was {name} and now is {predictor.name}",
                "the same command with --restart begins anew",
            )
        yield window, answers
        skip += len(window.records)


def _open(file: RowFile, kind: str) -> tuple[Source, Any]:
    """Look through the input; also return the Arrow schema of its columns if the output's `kind` is parquet."""
    if file.form.format == "parquet":
        table = ParquetSource(file, as_table=kind == "parquet")
        return table, table.schema
    if kind == "parquet":
        parquet.pyarrow()  # it is missing before a long file is read, not after
    text = TextSource(file)
    return text, parquet.schema_of(text, file.form.format) if kind == "parquet" else None


def _look(file: Path) -> tuple[int, ...]:
    """What changes when a file does."""
    with row_files.reading(file):
        found = file.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _answer_columns(given: Sequence[str]) -> tuple[str, ...]:
    """Names for the answer's columns under which none of the given columns is lost."""
    columns: tuple[str, ...] = ANSWER_COLUMNS
    while set(columns) & set(given):
        columns = tuple(f"predicted_{name}" for name in columns)
    return columns


def _columns(answers: Sequence[Answer]) -> list[list[object]]:
    """The columns of answers."""
    given = [answer.to_dict() if isinstance(answer, Prediction) else {} for answer in answers]
    return [[answer.get(name) for answer in given] for name in ANSWER_COLUMNS]


def _rejected(window: Window, answers: Sequence[Answer], done: int) -> bytes:
    """The lines of the rows that got no answer: number in the input, reason, and the row as it is."""
    lines = []
    place = 0
    for number, record in enumerate(window.records, done + 1):
        if isinstance(record, RowError):
            where = {"at": record.where} if record.where else {}
            line = {"row": number, **where, "reason": record.reason, "in_output": False, "content": record.content}
            lines.append(line)
            continue
        answer = answers[place]
        if isinstance(answer, str):
            content = record if window.table is None else parquet.row(window.table, place, record)
            lines.append({"row": number, "reason": answer, "in_output": True, "content": content})
        place += 1
    return writers.to_bytes("".join(json.dumps(line, ensure_ascii=False, default=str) + "\n" for line in lines))


def _further(kept: ResumeState, window: Window, answers: Sequence[Answer]) -> ResumeState:
    """How far a run is after a window."""
    return replace(
        kept,
        records=kept.records + len(window.records),
        rows=kept.rows + len(answers),
        skipped=kept.skipped + sum(1 for answer in answers if isinstance(answer, str)),
        unreadable=kept.unreadable + len(window.records) - len(answers),
    )
