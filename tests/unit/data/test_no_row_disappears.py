"""Lines in are rows out, and those that notes call left out."""

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from newsbert.api import init_config
from newsbert.data import readers as rows
from newsbert.data.dataset import load_dataset
from newsbert.errors import DataError
from newsbert.inference.batch.predict_file import predict_file
from tests.support.batch import LengthModel

piece = st.sampled_from(['"', '""', ",", "\t", ";", "'", " ", "a", "goal", "é", "|", "\\", "{", "}"])
line = st.lists(piece, max_size=8).map("".join).filter(str.strip)  # a blank line is no row
relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)


@relaxed
@given(st.sampled_from(["rows.csv", "rows.tsv", "rows.jsonl"]), st.lists(line, min_size=1, max_size=12))
def test_lines_in_are_rows_out_and_rejected_rows(name: str, lines: list[str]) -> None:
    if name == "rows.jsonl":
        lines = [json.dumps({"text": text}) if number % 3 else text for number, text in enumerate(lines, 1)]
        head = ""
    else:
        head = "text\tid\n" if name == "rows.tsv" else "text,id\n"
    with tempfile.TemporaryDirectory() as directory:
        file, output = Path(directory) / name, Path(directory) / "out.jsonl"
        file.write_text(head + "".join(f"{text}\n" for text in lines), encoding="utf-8")
        notes: list[str] = []
        try:
            done = predict_file(LengthModel(), file, output, None, lambda _d, _t: None, on_note=notes.append)
        except DataError as error:
            assert (
                "is opened there and never closed" in error.message
                or "has no rows" in error.message
                or ("more row" in error.message or ", line " in error.message or "no column" in error.message)
            )
            return
        records = [json.loads(text) for text in output.read_text(encoding="utf-8").splitlines()]
        rejected = [json.loads(text) for text in done.rejected.read_text().splitlines()] if done.rejected else []
        spanned = sum(str(record.get(column, "")).count("\n") for record in records for column in ("text", "id"))
        spanned += sum(row["content"].rstrip("\n").count("\n") for row in rejected if not row["in_output"])
        assert len(lines) == len(records) + done.unreadable + spanned
        multiline = sum("\n" in f"{record.get('text')}{record.get('id')}" for record in records)
        noted = re.search(r"([0-9]+) rows? with a line break in a field", "".join(notes))
        assert (int(noted[1]) if noted else 0) == multiline


GOOD = [(label, f"{label} number {number}") for number in range(9) for label in ("money", "sport", "N/A")]


@relaxed
@given(
    st.sampled_from(["rows.csv", "rows.tsv", "rows.jsonl"]),
    st.lists(st.tuples(st.sampled_from(["money", "sport", "", "N/A"]), line), min_size=1, max_size=12),
)
def test_lines_in_are_the_rows_of_train_and_of_init_and_those_that_notes_call_left_out(
    name: str, lines: list[tuple[str, str]]
) -> None:
    lines = GOOD + lines
    if name == "rows.jsonl":
        content = "".join(f"{json.dumps({'label': label, 'text': text})}\n" for label, text in lines)
    else:
        delimiter = "\t" if name == "rows.tsv" else ","
        content = "".join(f"{label}{delimiter}{text}\n" for label, text in [("label", "text"), *lines])
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / name
        file.write_text(content, encoding="utf-8")
        try:
            trained, surveyed = load_dataset(str(file)), init_config.survey(str(file))
        except DataError as error:
            assert re.search(r", (line|row) [0-9]+|is opened there and never closed|more row", error.message)
            return
        spanned = sum(str(value).count("\n") for row in rows.read(file) for value in row.values())
    splits = (trained.train, trained.validation, trained.test)
    assert sum(map(len, splits)) + _left_out(trained.notes) + spanned == len(lines)
    counts = sum(sum(split.values()) for split in surveyed.rows.values())
    assert counts + _left_out(surveyed.notes) + spanned == len(lines)


def _left_out(notes: Sequence[str]) -> int:
    """Add up the rows that notes call left out."""
    matches = (re.match(r"([0-9]+) .*left out", note) for note in notes)
    return sum(int(match[1]) for match in matches if match)
