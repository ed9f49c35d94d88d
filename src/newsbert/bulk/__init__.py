"""Classifying the rows of a file of any size into another file, window by window; a run goes on where one ended."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from newsbert import rows as row_files
from newsbert.bulk.partial import Kept, kept, rejected_file
from newsbert.bulk.run import ANSWER_COLUMNS, Done, predict_file
from newsbert.bulk.scoring import Predictor
from newsbert.bulk.workers import Workers
from newsbert.errors import BadRequestError, UsageError
from newsbert.model import Prediction
from newsbert.text import NewsItem, prepare

__all__ = ["ANSWER_COLUMNS", "Done", "Kept", "Predictor", "Workers", "check", "kept", "predict_file", "predict_items"]


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
        reads_rejected = file.resolve() == rejected_file(output).resolve()
    except (OSError, RuntimeError) as error:  # the latter of a loop of links
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{str(output)!r} cannot be written: {reason}", "name another file") from error
    if not has_parent:
        raise UsageError(f"no such directory: {str(output.parent)!r}", f"mkdir -p {shlex.quote(str(output.parent))}")
    if is_directory:
        raise UsageError(f"{str(output)!r} is a directory", "name a file")
    if reads_rejected:
        raise UsageError(f"{str(file)!r} is where the bad rows of {str(output)!r} go", "name another --output")


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
