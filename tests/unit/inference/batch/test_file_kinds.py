"""Bulk prediction of a file: the types of its columns, its windows, and its memory."""

import datetime
import gzip
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsbert.data.readers import read as read_rows
from newsbert.errors import DataError
from newsbert.inference.batch import readers
from tests.support.batch import (
    OUTPUT_KINDS,
    LengthModel,
    answer_of,
    answers,
    classify,
    relaxed,
    utf8_text,
    write_jsonl,
)
from tests.support.rows import json_values

SCHEMA = pa.schema(
    [
        pa.field("id", pa.int8(), nullable=False),
        pa.field("text", pa.large_string()),
        pa.field("day", pa.date32()),
        pa.field("at", pa.timestamp("us", "Europe/Berlin"), metadata={"unit": "wall"}),
        pa.field("price", pa.decimal128(9, 2)),
        pa.field("source", pa.dictionary(pa.int8(), pa.string())),
        pa.field("tags", pa.list_(pa.struct([("name", pa.string()), ("weight", pa.float32())]))),
        pa.field("blob", pa.binary()),
    ],
    metadata={"made by": "a test"},
)


def table_of(count: int) -> pa.Table:
    day = datetime.date(2004, 8, 1)
    columns = [
        list(range(count)),
        [f"text {'x' * number}" for number in range(count)],
        [None if number % 3 else day for number in range(count)],
        [datetime.datetime(2004, 8, 1, 12, tzinfo=datetime.UTC)] * count,
        [None] * count,
        [f"source {number % 5}" for number in range(count)],
        [[{"name": "a", "weight": 0.5}], None, []] * (count // 3),
        [b"\xff\x00"] * count,
    ]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("group_rows", [2, 100])
@pytest.mark.parametrize("name", ["in.parquet", "in.parquet.gz"])
def test_a_parquet_file_keeps_all_types_of_its_columns(name: str, group_rows: int, tmp_path: Path) -> None:
    table = table_of(30)
    pq.write_table(table, tmp_path / "plain.parquet", row_group_size=group_rows)
    content = (tmp_path / "plain.parquet").read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    output = tmp_path / "out.parquet"
    classify(tmp_path / name, output)
    written = pq.read_table(output)
    assert written.select(SCHEMA.names).equals(table)
    source_schema = pq.read_schema(tmp_path / "plain.parquet")
    assert written.schema.remove(11).remove(10).remove(9).remove(8).equals(source_schema, check_metadata=True)
    assert source_schema.metadata == {b"made by": b"a test"}
    assert written.schema.types[8:] == [pa.string(), pa.float64(), pa.bool_(), pa.string()]
    assert answers(output) == [answer_of(f"text {'x' * number}".strip()) for number in range(30)]
    assert pq.ParquetFile(output).num_row_groups == 1  # even where it was read and saved in small parts


def test_parquet_is_written_as_text(tmp_path: Path) -> None:
    pq.write_table(table_of(3), tmp_path / "in.parquet")
    classify(tmp_path / "in.parquet", tmp_path / "out.jsonl")
    first = read_rows(tmp_path / "out.jsonl")[0]
    assert (first["id"], first["day"], first["tags"]) == (0, "2004-08-01", [{"name": "a", "weight": 0.5}])
    classify(tmp_path / "in.parquet", tmp_path / "out.csv")
    assert json.loads(read_rows(tmp_path / "out.csv")[0]["tags"]) == [{"name": "a", "weight": 0.5}]


@pytest.mark.usefixtures("small_windows")
def test_columns_of_parquet_get_a_type_that_all_rows_fit(tmp_path: Path) -> None:
    table: list[dict[str, Any]] = [
        {"text": "one", "count": 1, "tags": None},
        {"text": "two", "count": 2},
        {"text": "three", "count": None, "tags": []},
        {"text": "four", "count": 0.5, "who": {"name": "é"}},
        {"text": "five", "tags": ["a"]},
        {"text": "six", "late": True, "who": {"age": 3}},
        {"text": "seven"},
    ]
    output = tmp_path / "out.parquet"
    classify(write_jsonl(tmp_path / "in.jsonl", table), output)
    written = pq.read_table(output)
    types = {name: written.schema.field(name).type for name in ("count", "tags", "late", "who")}
    assert types == {
        "count": pa.float64(),
        "tags": pa.list_(pa.string()),
        "late": pa.bool_(),
        "who": pa.struct([("name", pa.string()), ("age", pa.int64())]),
    }
    assert written.column("count").to_pylist() == [1.0, 2.0, None, 0.5, None, None, None]
    assert written.column("who").to_pylist()[3:6] == [{"name": "é", "age": None}, None, {"name": None, "age": 3}]
    assert written.column("late").to_pylist() == [None] * 5 + [True, None]


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("values", [[1, 2, 3, "one"], [2**53 + 1, 1, 1, 0.5], [{}, {}, {}, {}], [1, 1, 1, {"a": 1}]])
def test_a_column_that_fits_no_type_is_an_error_before_the_model_runs(values: list[Any], tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "in.jsonl", [{"text": "one", "x": value} for value in values])
    model = LengthModel()
    with pytest.raises(DataError, match="do not fit a parquet file"):
        classify(file, tmp_path / "out.parquet", model=model)
    assert model.requests == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]


# Keys of a column, and values of one type in it: those that parquet takes.
@relaxed
@given(st.lists(st.dictionaries(st.text(max_size=4), json_values, max_size=3), min_size=1, max_size=9))
def test_nested_values_come_through_jsonl_as_they_were(table: list[dict[str, Any]]) -> None:
    table = [{"text": "x" * number, **row} for number, row in enumerate(table)]
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "WINDOW_ROWS", 2)
        file, output = write_jsonl(Path(directory) / "in.jsonl", table), Path(directory) / "out.jsonl"
        done = classify(file, output)
        written = [{name: row[name] for name in row if name not in done.columns} for row in read_rows(output)]
    assert written == table


@relaxed
@given(
    st.lists(st.lists(st.text(max_size=5).filter(lambda text: text.isprintable()), max_size=3), min_size=1, max_size=9)
)
def test_nested_values_come_through_parquet_as_they_were(values: list[list[str]]) -> None:
    table = [{"text": "x", "tags": value, "who": {"name": "n", "all": value}} for value in values]
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "WINDOW_ROWS", 2)
        file, output = write_jsonl(Path(directory) / "in.jsonl", table), Path(directory) / "out.parquet"
        classify(file, output)
        back = Path(directory) / "back.jsonl"
        classify(output, back)
        for copy in (output, back):
            assert [{name: row[name] for name in table[0]} for row in read_rows(copy)] == table


@relaxed
@given(
    st.lists(st.tuples(utf8_text | st.sampled_from(["a\rb", '"', "\n"]), utf8_text), min_size=1, max_size=9),
    st.sampled_from(OUTPUT_KINDS),
    st.integers(1, 4),
)
def test_the_output_is_the_same_whatever_the_windows(table: list[tuple[str, str]], kind: str, window: int) -> None:
    written = []
    with tempfile.TemporaryDirectory() as directory:
        file = write_jsonl(Path(directory) / "in.jsonl", [{"text": text, "x": x} for text, x in table])
        for size in (window, 1000):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(readers, "WINDOW_ROWS", size)
                output = Path(directory) / f"out.{kind}"
                classify(file, output)
            written.append(output.read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize("chars", [0, 40, 10**6])
def test_a_window_has_no_more_text_than_memory_is_to_hold(
    chars: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "WINDOW_CHARS", chars)
    monkeypatch.setattr("newsbert.inference.batch.parquet.WINDOW_CHARS", chars)
    table = [{"text": f"text {number}"} for number in range(20)]  # of some twenty characters a line
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "in.parquet", row_group_size=5)
    for file in (write_jsonl(tmp_path / "in.jsonl", table), tmp_path / "in.parquet"):
        model = LengthModel()
        classify(file, tmp_path / "out.jsonl", model=model)
        assert sum(model.requests) == 20
        assert max(model.requests) == 1 if chars == 0 else max(model.requests) < 7 if chars == 40 else True
        assert answers(tmp_path / "out.jsonl") == [answer_of(row["text"]) for row in table]


PEAK = """
import re, sys
from pathlib import Path
from newsbert.inference.batch.predict_file import predict_file
from newsbert.inference.model import Prediction

class Model:
    name = "m"
    def predict(self, items):
        return [Prediction.of(("a", "b"), (0.25, 0.75)) for _ in items]

predict_file(Model(), Path(sys.argv[1]), Path(sys.argv[2]), None, lambda done, total: None)
print(re.search("VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.parametrize(("source_kind", "kind"), [("jsonl", "parquet"), ("parquet", "csv")])
def test_memory_does_not_grow_with_the_file(source_kind: str, kind: str, tmp_path: Path) -> None:
    peaks = []
    for count in (40_000, 110_000):
        table = [{"id": number, "text": f"Stocks fall, says number {number} {'x' * 400}"} for number in range(count)]
        file = tmp_path / f"{count}.{source_kind}"
        if source_kind == "parquet":
            pq.write_table(pa.Table.from_pylist(table), file)
        else:
            write_jsonl(file, table)
        command = [sys.executable, "-c", PEAK, str(file), str(tmp_path / f"out.{kind}")]
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        peaks.append(int(result.stdout) / 1024)
    # The rows that were added are 31 MB of text, and more than 60 MiB as Python objects.
    assert peaks[1] - peaks[0] < 30, f"{peaks} MiB"
