"""Bulk prediction of a file: rows that are rejected, with the reason, and requests that fail."""

import datetime
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from newsbert.data.readers import read as read_rows
from newsbert.errors import BadRequestError, DataError, UsageError
from newsbert.inference.batch import paths
from newsbert.inference.batch.predict_file import predict_file
from tests.support.batch import (
    LABELS,
    NO_ANSWER,
    OUTPUT_KINDS,
    LengthModel,
    answer_of,
    answers,
    classify,
    write_jsonl,
)


def rejected(output: Path) -> list[dict[str, Any]]:
    return read_rows(output.with_name(f"{output.name}.rejected.jsonl"))


@pytest.mark.usefixtures("small_windows")
def test_lines_of_jsonl_that_are_no_rows_go_to_the_file_of_rejected_rows(tmp_path: Path) -> None:
    lines = [
        b'{"text": "one"}',
        b"",
        b'{"text": ',
        b'["text"]',
        b'{"text": "caf\xe9"}',
        b'{"text": [5]}',
        b'{"text": ""}',
    ]
    lines += [b'{"text": "eight", "x": [1]}']
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))
    output = tmp_path / "out.jsonl"
    done = classify(tmp_path / "in.jsonl", output)
    assert (done.rows, done.skipped, done.unreadable) == (4, 2, 3)
    assert done.rejected == tmp_path / "out.jsonl.rejected.jsonl"
    assert answers(output) == [answer_of("one"), NO_ANSWER, NO_ANSWER, answer_of("eight")]
    utf8 = "not valid UTF-8 (byte 0xe9, position 14)"
    assert rejected(output) == [
        {
            "row": 2,
            "at": "line 3",
            "reason": rejected(output)[0]["reason"],
            "in_output": False,
            "content": '{"text": \n',
        },
        {
            "row": 3,
            "at": "line 4",
            "reason": "expected an object, got list",
            "in_output": False,
            "content": '["text"]\n',
        },
        {"row": 4, "at": "line 5", "reason": utf8, "in_output": False, "content": '{"text": "caf\\xe9"}\n'},
        {
            "row": 5,
            "reason": "the text is no text but [5]",
            "in_output": True,
            "content": {"text": [5]},
        },
        {"row": 6, "reason": "the text is empty", "in_output": True, "content": {"text": ""}},
    ]
    assert rejected(output)[0]["reason"].startswith("not valid JSON")


@pytest.mark.parametrize("kind", OUTPUT_KINDS)
def test_rows_of_csv_that_are_none_go_to_the_file_of_rejected_rows(kind: str, tmp_path: Path) -> None:
    content = b'text,id\n"two\nlines",1\na,b,c\n\n"a" b,3\ncaf\xe9,4\n,5\nlast,6\n"cut of'
    (tmp_path / "in.csv").write_bytes(content)
    output = tmp_path / f"out.{kind}"
    done = classify(tmp_path / "in.csv", output)
    assert (done.rows, done.skipped, done.unreadable) == (3, 1, 4)
    assert [row["id"] for row in read_rows(output)] == ["1", "5", "6"]
    assert answers(output) == [answer_of("two lines"), NO_ANSWER, answer_of("last")]
    assert [(row["row"], row.get("at"), row["content"]) for row in rejected(output)] == [
        (2, "line 4", "a,b,c\n"),
        (3, "line 6", '"a" b,3\n'),
        (4, "line 7", "caf\\xe9,4\n"),
        (5, None, {"text": "", "id": "5"}),
        (7, "line 10", '"cut of'),
    ]


def test_a_quote_that_swallows_the_other_rows_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('text,id\nfirst,1\n"second,2\nthird,3\nfourth,4\n')
    model = LengthModel()
    with pytest.raises(DataError, match="line 3: a quote is opened there and never closed"):
        classify(tmp_path / "in.csv", tmp_path / "out.csv", model=model)
    assert model.requests == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.jsonl", "text\none\n", "line 1: not valid JSON"),
        ("in.csv", "text\na,b\n", "line 2: 2 fields"),
        ("in.csv", "text\n", "has no rows"),
        ("in.jsonl", "\n", "has no rows"),
        ("in.json", "[]", "has no rows"),
        ("in.json", "[3]", "item 0: expected an object"),
    ],
)
def test_a_file_without_a_row_that_can_be_read_is_an_error(
    name: str, content: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        classify(tmp_path / name, tmp_path / "out.csv")
    assert caught.value.hint
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


@pytest.mark.parametrize("kind", OUTPUT_KINDS)
def test_parquet_rows_that_python_does_not_know_are_rejected(kind: str, tmp_path: Path) -> None:
    dates = pa.array([0, 2**62, 0, 0, 0], pa.timestamp("us"))
    pq.write_table(pa.table({"text": ["a", "b", None, "dddd", "mark"], "at": dates}), tmp_path / "in.parquet",
                   compression="none", use_dictionary=False)  # fmt: skip
    content = (tmp_path / "in.parquet").read_bytes()
    (tmp_path / "in.parquet").write_bytes(content.replace(b"\4\0\0\0mark", b"\4\0\0\0\xff\xfe\xfd\xfc"))
    output = tmp_path / f"out.{kind}"
    done = classify(tmp_path / "in.parquet", output)
    if kind == "parquet":  # which needs not know them
        assert (done.rows, done.skipped, done.unreadable) == (5, 2, 0)
        assert pq.read_table(output, columns=["at"]).column("at").equals(pa.chunked_array([dates]))
        assert [(row["row"], row["reason"]) for row in rejected(output)] == [
            (3, "the text is empty"),
            (5, "the text is not valid UTF-8"),
        ]
        assert pq.read_table(output, columns=["label"]).column("label").to_pylist()[3] in LABELS
    else:
        assert (done.rows, done.skipped, done.unreadable) == (3, 1, 2)
        assert answers(output) == [answer_of("a"), NO_ANSWER, answer_of("dddd")]
        assert [(row["row"], row["in_output"]) for row in rejected(output)] == [(2, False), (3, True), (5, False)]


def test_rejected_rows_of_parquet_are_shown_whole(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", " "], "day": [datetime.date(2004, 8, 1)] * 2}), tmp_path / "in.parquet")
    classify(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert rejected(tmp_path / "out.parquet")[0]["content"] == {"text": " ", "day": "2004-08-01"}


def test_an_old_file_of_rejected_rows_does_not_stay_beside_a_new_output(tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    assert classify(write_jsonl(tmp_path / "in.jsonl", [{"text": "a"}, {"text": ""}]), output).rejected
    assert rejected(output)
    assert classify(write_jsonl(tmp_path / "in.jsonl", [{"text": "a"}]), output).rejected is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.csv"]


def test_rejected_rows_are_not_written_over_those_that_are_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="where the bad rows of"):
        paths.check(tmp_path / "out.csv.rejected.jsonl", tmp_path / "out.csv")


class Refusing(LengthModel):
    """A server that takes no text with `bad` in it, nor any other in the same request."""

    def predict(self, items: Any) -> Any:
        if any("bad" in str(item) for item in items):
            raise BadRequestError("bad is refused")
        return super().predict(items)


@pytest.mark.parametrize("requests", [1, 5])
def test_a_text_that_a_server_refuses_costs_no_other_its_answer(requests: int, tmp_path: Path) -> None:
    table = [{"text": f"bad {number}" if number in {0, 77, 499} else f"text {number}"} for number in range(500)]
    output = tmp_path / "out.jsonl"
    file = write_jsonl(tmp_path / "in.jsonl", table)
    done = predict_file(Refusing(), file, output, None, lambda *_: None, requests=requests)
    assert (done.rows, done.skipped) == (500, 3)
    expected = [NO_ANSWER if "bad" in row["text"] else answer_of(row["text"]) for row in table]
    assert answers(output) == expected
    assert [(row["row"], row["reason"]) for row in rejected(output)] == [
        (number, "bad is refused") for number in (1, 78, 500)
    ]


def test_requests_are_under_way_together(tmp_path: Path) -> None:
    together = threading.Barrier(3)

    class Meeting(LengthModel):
        def predict(self, items: Any) -> Any:
            together.wait(timeout=30)  # breaks unless three come
            return super().predict(items)

    table = [{"text": f"text {'x' * (number % 50)}"} for number in range(64 * 6)]
    output = tmp_path / "out.csv"
    file = write_jsonl(tmp_path / "in.jsonl", table)
    predict_file(Meeting(), file, output, None, lambda *_: None, requests=3)
    assert answers(output) == [answer_of(row["text"].strip()) for row in table]


def test_texts_of_like_length_are_answered_together(tmp_path: Path) -> None:
    class Listening(LengthModel):
        lengths: list[int] = []  # noqa: RUF012

        def predict(self, items: Any) -> Any:
            self.lengths += map(len, items)
            return super().predict(items)

    table = [{"text": "x" * (1 + number * 7919 % 101)} for number in range(5000)]
    classify(write_jsonl(tmp_path / "in.jsonl", table), tmp_path / "out.csv", model=Listening())
    assert Listening.lengths == sorted((len(row["text"]) for row in table), reverse=True)
    assert answers(tmp_path / "out.csv") == [answer_of(row["text"]) for row in table]
