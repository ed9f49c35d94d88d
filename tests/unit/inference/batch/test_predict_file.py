"""Classifying the rows of a file: every row answered, every column still there, the output whole or not there."""

import re
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsbert.data import readers
from newsbert.data.text import preprocess
from newsbert.errors import BadRequestError, DataError, NewsbertError, ServingError, UsageError
from newsbert.inference.batch import paths
from newsbert.inference.batch.predict_file import BatchResult, predict_file
from newsbert.inference.items import predict_items
from tests.support.batch import (
    KINDS,
    NO_ANSWER,
    OUTPUT_KINDS,
    LengthModel,
    answer_of,
    answers,
    classify,
    relaxed,
    utf8_text,
    write_jsonl,
)
from tests.support.rows import encode

TABLE = [{"id": f"{n}", "text": f' text {"x" * n}, "quoted"\n', "note": "é\tà"} for n in range(7)]


def carried(value: str, *kinds: str) -> str:
    """What files of some formats make of a text: tsv has no tabs and no line breaks."""
    return re.sub(r"[\t\r\n]+", " ", value) if "tsv" in kinds else value


@pytest.mark.parametrize("target", OUTPUT_KINDS)
@pytest.mark.parametrize("source", [*KINDS, "csv.gz", "parquet.gz"])
def test_every_format_in_and_out(source: str, target: str, tmp_path: Path) -> None:
    file, output = tmp_path / f"in.{source}", tmp_path / f"out.{target}"
    table = [{name: carried(value, source, target) for name, value in row.items()} for row in TABLE]
    file.write_bytes(
        encode(file.name, [{name: carried(value, source) for name, value in row.items()} for row in TABLE])
    )
    assert classify(file, output) == BatchResult(7, 0, ("label", "score", "review", "probabilities"))
    copied = [{name: row[name] for name in ("id", "text", "note")} for row in readers.read(output)]
    assert copied == table
    assert list(readers.read(output)[0]) == ["id", "text", "note", "label", "score", "review", "probabilities"]
    assert answers(output) == [answer_of(preprocess(row["text"])) for row in TABLE]


texts_and_more = st.fixed_dictionaries({"text": utf8_text | st.sampled_from(["\r", "a\rb", '"']), "x": utf8_text})


@relaxed
@given(st.lists(texts_and_more, min_size=1, max_size=6), st.sampled_from(OUTPUT_KINDS))
def test_whatever_the_rows_hold_comes_back_with_its_answer(table: list[dict[str, str]], kind: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file, output = write_jsonl(Path(directory) / "in.jsonl", table), Path(directory) / f"out.{kind}"
        done = classify(file, output)
        carried_rows = [{name: carried(value, kind) for name, value in row.items()} for row in table]
        assert [{"text": row["text"], "x": row["x"]} for row in readers.read(output)] == carried_rows
        expected = []
        for row in table:
            try:
                expected.append(answer_of(preprocess(row["text"])))
            except ValueError:
                expected.append(NO_ANSWER)
        assert answers(output) == expected
        assert (done.rows, done.skipped) == (len(table), expected.count(NO_ANSWER))


@pytest.mark.parametrize("kind", OUTPUT_KINDS)
def test_rows_without_text_get_an_empty_answer(kind: str, tmp_path: Path) -> None:
    table: list[dict[str, Any]] = [{"text": "one"}, {"text": " <br> "}, {"text": None}, {"text": ""}, {"text": "five!"}]
    output = tmp_path / f"out.{kind}"
    assert classify(write_jsonl(tmp_path / "in.jsonl", table), output).skipped == 3
    assert answers(output) == [answer_of("one"), NO_ANSWER, NO_ANSWER, NO_ANSWER, answer_of("five!")]


def test_a_file_without_any_text_needs_no_prediction(tmp_path: Path) -> None:
    model, output = LengthModel(), tmp_path / "out.jsonl"
    done = classify(write_jsonl(tmp_path / "in.jsonl", [{"text": ""}] * 3), output, model=model)
    assert (done.rows, done.skipped, model.requests) == (3, 3, [])
    assert answers(output) == [NO_ANSWER] * 3


def test_title_and_text_are_joined_as_in_training(tmp_path: Path) -> None:
    table: list[dict[str, Any]] = [
        {"title": "Oil\\", "description": " up &amp; up"},
        {"title": None, "description": "only text"},
        {"title": "only title", "description": None},
        {"description": "no title at all"},
        {"title": "", "description": " "},
    ]
    output = tmp_path / "out.jsonl"
    classify(write_jsonl(tmp_path / "in.jsonl", table), output)
    texts = ["Oil up & up", "only text", "only title", "no title at all"]
    assert answers(output) == [*map(answer_of, texts), NO_ANSWER]


def test_ag_news_headerless_file_is_classified_with_its_first_row(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('"3","Title","Body"\n"4","T","B"\n')
    output = tmp_path / "out.csv"
    classify(tmp_path / "in.csv", output)
    assert answers(output) == [answer_of("Title Body"), answer_of("T B")]
    assert [row["class"] for row in readers.read(output)] == ["3", "4"]


def test_a_named_text_column_is_read_alone(tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    classify(write_jsonl(tmp_path / "in.jsonl", [{"title": "t", "text": "x", "body": "the body"}]), output, "body")
    assert answers(output) == [answer_of("the body")]


def test_a_missing_text_column_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "in.jsonl", [{"body": "a", "id": 1}])
    for column, missing in ((None, "text"), ("headline", "headline")):
        with pytest.raises(DataError, match=f"no column '{missing}'; the columns are: body, id") as caught:
            classify(file, tmp_path / "out.csv", column)
        assert "--text-column" in str(caught.value.hint)
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("column", ["label", "score", "review", "probabilities"])
@pytest.mark.parametrize("kind", OUTPUT_KINDS)
def test_a_column_of_the_input_is_never_overwritten(column: str, kind: str, tmp_path: Path) -> None:
    output = tmp_path / f"out.{kind}"
    done = classify(write_jsonl(tmp_path / "in.jsonl", [{"text": "one", column: "mine"}]), output)
    assert done.columns == ("predicted_label", "predicted_score", "predicted_review", "predicted_probabilities")
    assert readers.read(output)[0][column] == "mine"
    assert answers(output, done.columns) == [answer_of("one")]


def test_an_output_can_be_classified_again(tmp_path: Path) -> None:
    files = [write_jsonl(tmp_path / "0.jsonl", [{"text": "one"}, {"text": "three"}])]
    for number in range(1, 4):
        files.append(tmp_path / f"{number}.csv")
        done = classify(files[-2], files[-1])
        assert answers(files[-1], done.columns) == [answer_of("one"), answer_of("three")]
    assert len(readers.read(files[-1])[0]) == 1 + 3 * 4


@pytest.mark.parametrize("kind", OUTPUT_KINDS)
def test_columns_that_only_later_rows_have_are_written(kind: str, tmp_path: Path) -> None:
    table: list[dict[str, Any]] = [{"text": "one"}, {"text": "two", "label": "mine", "id": "2"}, {"id": "3"}]
    output = tmp_path / f"out.{kind}"
    done = classify(write_jsonl(tmp_path / "in.jsonl", table), output)
    rows = readers.read(output)
    assert [row.get("label") or None for row in rows] == [None, "mine", None]
    assert [row.get("id") or None for row in rows] == [None, "2", "3"]
    assert answers(output, done.columns) == [answer_of("one"), answer_of("two"), NO_ANSWER]


def test_half_a_surrogate_pair_goes_through_json_lines(tmp_path: Path) -> None:
    table = [{"text": "broken \ud83d emoji"}]
    output = tmp_path / "out.jsonl"
    classify(write_jsonl(tmp_path / "in.jsonl", table), output)
    assert readers.read(output)[0]["text"] == table[0]["text"]
    assert answers(output) == [answer_of("broken \ufffd emoji")]


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_half_a_surrogate_pair_does_not_stop_a_csv_file(kind: str, tmp_path: Path) -> None:
    output = tmp_path / f"out.{kind}"
    classify(write_jsonl(tmp_path / "in.jsonl", [{"text": "broken \ud83d emoji"}]), output)
    assert readers.read(output)[0]["text"] == "broken \\ud83d emoji"


@pytest.mark.parametrize("values", [[1, "one"], ["\ud83d", ""], [2**80, 1]])
def test_rows_that_do_not_fit_parquet_are_an_error_and_leave_nothing(values: list[Any], tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "in.jsonl", [{"text": "one", "x": value} for value in values])
    with pytest.raises(DataError, match="do not fit a parquet file") as caught:
        classify(file, tmp_path / "out.parquet")
    assert "jsonl" in str(caught.value.hint)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["in.jsonl"]
    classify(file, tmp_path / "out.jsonl")
    assert [row["x"] for row in readers.read(tmp_path / "out.jsonl")] == values


def test_long_files_are_answered_row_by_row_with_progress(tmp_path: Path) -> None:
    table = [{"text": "x" * (n % 17)} for n in range(1300)]
    progress: list[tuple[int, int]] = []
    model, output = LengthModel(), tmp_path / "out.parquet"
    file = write_jsonl(tmp_path / "in.jsonl", table)
    done = predict_file(model, file, output, None, lambda *numbers: progress.append(numbers))
    empty = sum(1 for n in range(1300) if n % 17 == 0)
    assert (done.rows, done.skipped) == (1300, empty)
    assert answers(output) == [answer_of(row["text"]) if row["text"] else NO_ANSWER for row in table]
    assert len(progress) > 1
    assert [total for _, total in progress] == [1300] * len(progress)
    assert sorted({count for count, _ in progress}) == [count for count, _ in progress]
    assert progress[-1] == (1300, 1300)
    assert sum(model.requests) == 1300 - empty


def test_the_output_may_be_the_input(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", [{"text": "one"}])
    classify(file, file)
    assert answers(file) == [answer_of("one")]


def test_a_failing_model_leaves_the_earlier_output_as_it_was(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "in.jsonl", [{"text": f"text {n}"} for n in range(1000)])
    output = tmp_path / "out.csv"
    output.write_text("from last time")
    with pytest.raises(ServingError):
        classify(file, output, model=LengthModel(fail_at="text 900"))
    assert output.read_text() == "from last time"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["in.jsonl", "out.csv"]


@pytest.mark.parametrize("place", ["missing/out.csv", "a-file/out.csv", "directory.csv", f"{'x' * 250}.csv"])
def test_an_output_that_cannot_be_written_is_an_error_and_leaves_nothing(place: str, tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("")
    (tmp_path / "directory.csv").mkdir()
    file = write_jsonl(tmp_path / "in.jsonl", [{"text": "one"}])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(NewsbertError, match="cannot be written") as caught:
        classify(file, tmp_path / place)
    assert caught.value.hint
    assert sorted(tmp_path.rglob("*")) == before


@contextmanager
def no_file_longer_than(size_bytes: int) -> Iterator[None]:
    """What a full disk is like: a file can be opened, but not written to its end."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", OUTPUT_KINDS)
def test_a_disk_that_fills_up_leaves_no_half_written_output(kind: str, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "in.jsonl", [{"text": f"{n} {n * n}"} for n in range(2000)])
    output = tmp_path / f"out.{kind}"
    output.write_text("from last time")
    with no_file_longer_than(4096), pytest.raises(NewsbertError, match="cannot be written") as caught:
        classify(file, output)
    assert "df" in str(caught.value.hint)
    assert output.read_text() == "from last time"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["in.jsonl", output.name]


# --- before any work --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["out.csv", "out.TSV", "out.jsonl", "out.ndjson", "out.parquet", "out.pq"])
def test_writable_outputs_pass_the_check(output: str, tmp_path: Path) -> None:
    paths.check(Path("in.csv.gz"), tmp_path / output)
    paths.check(Path("in.csv.gz"), Path(output))


@pytest.mark.parametrize(
    ("file", "output", "complaint"),
    [
        ("in.txt", "out.csv", "'in.txt' is of no known format"),
        ("in.csv", "out.txt", "'out.txt' cannot be written"),
        ("in.csv", "out", "'out' cannot be written"),
        ("in.csv", "out.csv.gz", "'out.csv.gz' cannot be written"),
        ("in.csv", "out.json", "'out.json' cannot be written: newsbert writes no JSON arrays"),
        ("in.json", "OUT.JSON", "'OUT.JSON' cannot be written: newsbert writes no JSON arrays"),
        ("in.csv", "missing/out.csv", "no such directory: 'missing'"),
        ("in.csv", "directory.csv", "'directory.csv' is a directory"),
    ],
)
def test_an_output_that_could_not_be_written_is_refused_at_once(
    file: str, output: str, complaint: str, tmp_path: Path
) -> None:
    (tmp_path / "directory.csv").mkdir()  # the working directory
    with pytest.raises(UsageError) as caught:
        paths.check(Path(file), Path(output))
    assert caught.value.message == complaint
    assert caught.value.hint
    assert (caught.value.hint == "name it .jsonl") is ("no JSON arrays" in complaint)


# --- texts that were typed --------------------------------------------------------------------------------------------


def test_typed_texts_are_answered_in_their_order() -> None:
    predictions = predict_items(LengthModel(), ["one", {"title": "a", "text": "b"}, "three"])
    assert [prediction.to_dict() for prediction in predictions] == [answer_of(text) for text in ("one", "a b", "three")]


def test_a_typed_text_that_is_none_is_named_by_its_number() -> None:
    model = LengthModel()
    with pytest.raises(BadRequestError, match=r"^text 2: the text is empty$"):
        predict_items(model, ["one", " \n", "three"])
    with pytest.raises(BadRequestError, match=r"^the text is empty$"):
        predict_items(model, [""])
