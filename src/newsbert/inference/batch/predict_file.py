"""Batch prediction for a file: read a window, classify it, save it, until the output is complete."""

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
from newsbert.inference.batch import parquet, paths, resume, writers
from newsbert.inference.batch.parquet import ParquetSource
from newsbert.inference.batch.predictor import Answer, Predictor, TextColumns, answer
from newsbert.inference.batch.ray_workers import Workers
from newsbert.inference.batch.readers import WINDOW_CHARS, WINDOW_ROWS, Source, TextSource, Window
from newsbert.inference.batch.resume import ResumeState
from newsbert.inference.prediction import Prediction

ANSWER_COLUMNS = ("label", "score", "review", "probabilities")


@dataclass(frozen=True)
class BatchResult:
    """Result of a batch prediction.

    Attributes:
        rows: Number of rows of the output.
        skipped: Number of these rows without a prediction.
        columns: Names of the added columns.
        unreadable: Number of input rows that cannot be read, and so are not in the output.
        rejected: File with the rows that got no prediction, and the reasons; if there are any.
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
    tier: bool = False,
) -> BatchResult:
    """Classify every row of `file`, and write it with all its columns and the prediction to `output`.

    Rows without text get an empty prediction. They, and rows that cannot be read, also go to a file of rejected rows.
    Memory does not grow with the file, unless it is json. The output appears whole or not at all. If the process ends
    early, its progress stays beside the output, and the same call resumes from there.

    Args:
        predictor: The model, here or in worker processes.
        file: Rows in one of `FORMATS`.
        output: A csv, tsv, jsonl or parquet file.
        text_column: Column of the text, if it is not `text` (or `title` with `text` or `description`).
        on_progress: Called with the number of rows that are done and the total number of rows.
        model: Identity of the model, so that no output mixes two models; defaults to its name.
        requests: Number of concurrent requests, for a model on a server.
        restart: Whether to discard saved progress and start over.
        on_note: Called with notes for the user.
        likely_columns: Columns of the text that take precedence over the default ones, if they exist and `text_column`
            is not set.
        tier: Add a column with the tier that answered.

    Raises:
        DataError: If the file cannot be read, does not have the column, or changes meanwhile.
        NewsbertError: If the output cannot be written.
    """
    kind = paths.output_format(output)
    before = _read_stat(file)
    row_file = RowFile(file)
    source, schema = _open(row_file, kind)
    with row_files.reading(file):
        digest = sha256_of(file)
    preferred = row_columns.choose(source.columns, text_column, likely_columns)
    text_columns = row_columns.find_texts(source.columns, preferred, str(file))
    if isinstance(source, ParquetSource):
        source.text_columns = [name for name in text_columns if name is not None]
    answers_of = (*ANSWER_COLUMNS, *(["tier"] if tier else []))
    answer_columns = _name_answer_columns(source.columns, answers_of)
    encoding = writers.make(kind, source.columns, schema, answer_columns)
    job = {
        "input": [row_file.form.format, digest],
        "model": predictor.name if model is None else model,
        "text column": list(text_columns),
        "newsbert": [__version__, WINDOW_ROWS, WINDOW_CHARS, *answers_of],
    }
    with resume.opened(output, job, source.total, encoding.header, restart) as partial:
        if note := row_file.note():
            on_note(note)
        if partial.note:
            on_note(partial.note)
        on_progress(partial.state.records, source.total)
        if isinstance(predictor, Workers):
            answered_windows = predictor.answered(source, partial.state.records, text_columns)
        else:
            answered_windows = _answer_windows(
                predictor, source, partial.state.records, text_columns, requests, on_progress
            )
        for window, answers in answered_windows:
            done = partial.state.records
            content = encoding.encode(window, _to_columns(answers, answers_of))
            partial.append(content, _format_rejected(window, answers, done), _advance(partial.state, window, answers))
            on_progress(partial.state.records, source.total)
        if _read_stat(file) != before or partial.state.records != source.total:
            raise DataError(f"{file} was changed while it was read", "the same command with --restart begins anew")
        rejected = partial.publish(encoding.finish)
        state = partial.state
        return BatchResult(state.rows, state.skipped, answer_columns, state.unreadable, rejected)


def _answer_windows(
    predictor: Predictor,
    source: Source,
    skip: int,
    text_columns: TextColumns,
    requests: int,
    on_progress: Callable[[int, int], None],
) -> Iterator[tuple[Window, list[Answer]]]:
    """Classify the windows after the first `skip` rows in this process, one after the other.

    Raises:
        ServingError: If the server's model changes meanwhile.
    """
    name = predictor.name
    for window in source.windows(skip):

        def report(answered: int, start: int = skip, size: int = len(window.records)) -> None:
            if answered < size:  # the end of a window is reported once it is saved
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
    """Scan the input; also return the Arrow schema of its columns if the output's `kind` is parquet."""
    if file.form.format == "parquet":
        table = ParquetSource(file, as_table=kind == "parquet")
        return table, table.schema
    if kind == "parquet":
        parquet.pyarrow()  # a missing pyarrow is reported before a long file is read
    text = TextSource(file)
    return text, parquet.schema_of(text, file.form.format) if kind == "parquet" else None


def _read_stat(file: Path) -> tuple[int, ...]:
    """Return the values that change when a file does: inode, size and modification time."""
    with row_files.reading(file):
        status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _name_answer_columns(used: Sequence[str], columns: tuple[str, ...]) -> tuple[str, ...]:
    """Return names for the columns of the predictions that do not clash with the input's columns."""
    while set(columns) & set(used):
        columns = tuple(f"predicted_{name}" for name in columns)
    return columns


def _to_columns(answers: Sequence[Answer], names: Sequence[str]) -> list[list[object]]:
    """Return the predictions as columns."""
    records = [answer.to_dict(tier="tier" in names) if isinstance(answer, Prediction) else {} for answer in answers]
    return [[answer.get(name) for answer in records] for name in names]


def _format_rejected(window: Window, answers: Sequence[Answer], done: int) -> bytes:
    """Return the lines of the rows without a prediction: number in the input, reason, and the row as it is."""
    lines = []
    position = 0
    for number, record in enumerate(window.records, done + 1):
        if isinstance(record, RowError):
            location = {"at": record.where} if record.where else {}
            line = {"row": number, **location, "reason": record.reason, "in_output": False, "content": record.content}
            lines.append(line)
            continue
        answer = answers[position]
        if isinstance(answer, str):
            content = record if window.table is None else parquet.row(window.table, position, record)
            lines.append({"row": number, "reason": answer, "in_output": True, "content": content})
        position += 1
    return writers.to_bytes("".join(json.dumps(line, ensure_ascii=False, default=str) + "\n" for line in lines))


def _advance(state: ResumeState, window: Window, answers: Sequence[Answer]) -> ResumeState:
    """Return the progress after a window."""
    return replace(
        state,
        records=state.records + len(window.records),
        rows=state.rows + len(answers),
        skipped=state.skipped + sum(1 for answer in answers if isinstance(answer, str)),
        unreadable=state.unreadable + len(window.records) - len(answers),
    )
