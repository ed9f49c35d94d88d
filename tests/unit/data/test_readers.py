"""Reading files of rows: every format, plain and gzipped, and whatever may be wrong with a file."""

import csv
import datetime
import gzip
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from newsbert.data import readers, row_columns
from newsbert.errors import DataError, NewsbertError, UsageError
from tests.support.rows import encode, json_values

relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
ALL_NAMES = [f"rows.{kind}{gz}" for kind in readers.FORMATS for gz in ("", ".gz")]

utf8_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
json_rows = st.lists(st.dictionaries(st.text(max_size=6), json_values, max_size=4), min_size=1, max_size=5)
mess = st.sampled_from(['"', ",", "\n", "\r", "\r\n", "\t", "\x00", " ", "\ufeff", "é", "🗞", "1", "''", '""'])
cell = st.lists(st.one_of(utf8_text, mess), max_size=4).map("".join)


def read_bytes(name: str, content: bytes) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / name
        file.write_bytes(content)
        return readers.read(file)


def get_error(name: str, content: bytes) -> DataError:
    with pytest.raises(DataError) as caught:
        read_bytes(name, content)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("name", ALL_NAMES)
def test_every_format_gives_the_same_rows(name: str) -> None:
    text = 'Öl, "teurer"' if "tsv" in name else 'Öl, "teurer"\nZeile zwei\tTab'
    table = [{"text": text, "label": "Wirtschaft"}, {"text": "Tor", "label": "Sport"}]
    assert read_bytes(name, encode(name, table)) == table


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.csv", "csv"),
        ("A.CSV.GZ", "csv"),
        ("x.tsv.gz", "tsv"),
        ("x.json", "json"),
        ("x.ndjson", "jsonl"),
        ("x.v2.jsonl.gz", "jsonl"),
        ("x.pq", "parquet"),
        ("x.parquet", "parquet"),
    ],
)
def test_the_file_name_decides_the_format(name: str, kind: str) -> None:
    assert readers.format_of(Path("some.dir") / name) == kind


@pytest.mark.parametrize("name", ["rows", "rows.txt", "rows.gz", "rows.zip", ".csv", "csv", "rows.xlsx"])
def test_a_name_without_a_known_format_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match="no known format") as caught:
        readers.read(Path(name))
    assert "jsonl" in str(caught.value.hint)


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "directory.csv").mkdir()
    for name in ("missing.csv", "directory.csv", "no/such/directory.jsonl", "nul\0.csv"):
        with pytest.raises(UsageError, match="no such file"):
            readers.read(tmp_path / name)


def test_an_invalid_file_name_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(NewsbertError, match="name too long"):
        readers.read(tmp_path / f"{'x' * 5000}.csv")


@pytest.mark.parametrize("name", ALL_NAMES)
def test_an_empty_file_is_a_data_error(name: str) -> None:
    empty = gzip.compress(b"") if name.endswith(".gz") else b""
    message = get_error(name, empty).message
    assert ("parquet" if "parquet" in name else "has no rows") in message
    assert get_error(name, b"")  # also an empty .gz, which is no gzip file


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.csv", "text,label\n"),
        ("r.csv", "\n\n"),
        ("r.csv", "\ufeff"),
        ("r.tsv", "text\tlabel"),
        ("r.json", "[]"),
        ("r.json", " \n"),
        ("r.jsonl", "\n \n"),
    ],
)
def test_a_file_without_rows_is_a_data_error(name: str, content: str) -> None:
    assert "has no rows" in get_error(name, content.encode()).message


def test_a_parquet_file_without_rows_is_a_data_error() -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), buffer)
    assert "has no rows" in get_error("r.parquet", buffer.getvalue()).message


@relaxed
@given(
    st.sampled_from(["r.csv", "r.csv.gz"]),
    st.lists(
        st.lists(cell, min_size=3, max_size=3).filter(lambda row: not row[0].startswith("\ufeff")),  # a file's own mark
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([("\r\n", csv.QUOTE_MINIMAL), ("\n", csv.QUOTE_ALL), ("\r\n", csv.QUOTE_ALL)]),
    st.booleans(),
)
def test_any_csv_is_read_as_written(name: str, table: list[list[str]], style: tuple[str, Any], mark: bool) -> None:
    stream = io.StringIO(newline="")
    terminator, quoting = style
    writer = csv.writer(stream, lineterminator=terminator, quoting=quoting)
    writer.writerows([["text", "label", "größe"], *table])
    content = stream.getvalue().encode("utf-8-sig" if mark else "utf-8")
    content = gzip.compress(content) if name.endswith(".gz") else content
    expected = [dict(zip(("text", "label", "größe"), row, strict=True)) for row in table]
    assert read_bytes(name, content) == expected


@relaxed
@given(st.lists(cell, min_size=1, max_size=4, unique=True), st.data())
def test_any_csv_header_is_read_as_written(header: list[str], data: st.DataObject) -> None:
    ag_news = len(header) == 3 and header[0] in {"1", "2", "3", "4"}
    if ag_news or header[0].startswith("\ufeff"):  # the one is a row, the other a byte order mark
        return
    row = data.draw(st.lists(cell, min_size=len(header), max_size=len(header)).filter(lambda row: row != header))
    if list(map(row_columns.normalize, row)) == list(map(row_columns.normalize, header)):  # it is repeated
        return
    stream = io.StringIO(newline="")
    csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([header, row])  # a bare tab may stand between fields
    names = [name if name.strip() else f"Unnamed: {place}" for place, name in enumerate(header)]
    assert read_bytes("r.csv", stream.getvalue().encode()) == [dict(zip(names, row, strict=True))]


@pytest.mark.parametrize(("name", "header"), [("r.csv", "\t"), ("r.csv", "a\tb"), ("r.tsv", "\t"), ("r.tsv", "a\tb")])
def test_a_tab_in_a_quoted_header_separates_no_columns(name: str, header: str) -> None:
    assert read_bytes(name, f'"{header}"\n"0\t1"\n"2\t3"\n'.encode()) == [
        {header if header.strip() else "Unnamed: 0": row} for row in ("0\t1", "2\t3")
    ]


@relaxed
@given(st.sampled_from(["r.jsonl", "r.jsonl.gz", "r.json", "r.json.gz"]), json_rows, st.booleans(), st.booleans())
def test_any_json_is_read_as_written(name: str, table: list[dict[str, Any]], ascii_: bool, mark: bool) -> None:
    if "jsonl" in name:
        text = "".join(json.dumps(row, ensure_ascii=ascii_) + "\n" for row in table)
    else:
        text = json.dumps(table, ensure_ascii=ascii_, indent=2)
    content = text.encode("utf-8-sig" if mark else "utf-8")
    assert read_bytes(name, gzip.compress(content) if name.endswith(".gz") else content) == table


@relaxed
@given(st.sampled_from(["r.parquet", "r.parquet.gz"]), st.lists(st.none() | utf8_text, min_size=1, max_size=5))
def test_any_parquet_is_read_as_written(name: str, texts: list[str | None]) -> None:
    buffer = io.BytesIO()
    schema = pa.schema({"text": pa.string(), "label": pa.int8()})
    pq.write_table(pa.table({"text": texts, "label": list(range(len(texts)))}, schema=schema), buffer)
    content = gzip.compress(buffer.getvalue()) if name.endswith(".gz") else buffer.getvalue()
    assert read_bytes(name, content) == [{"text": text, "label": i} for i, text in enumerate(texts)]


def assert_rows_or_known_error(name: str, content: bytes) -> None:
    try:
        rows = read_bytes(name, content)
    except NewsbertError as error:
        assert error.message
        assert error.hint
    else:
        assert rows
        assert all(isinstance(row, dict) for row in rows)


@relaxed
@given(st.sampled_from(ALL_NAMES), st.binary(max_size=300), st.booleans())
def test_random_bytes_give_rows_or_a_known_error(name: str, content: bytes, packed: bool) -> None:
    assert_rows_or_known_error(name, gzip.compress(content) if packed else content)


# Always the same examples: what pyarrow makes of a damaged file is not ours to explore in every run.
@settings(parent=relaxed, max_examples=300, derandomize=True)
@given(
    st.sampled_from(ALL_NAMES),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=3),
    st.integers(0, 10_000),
)
def test_a_damaged_file_gives_rows_or_a_known_error(name: str, damage: list[tuple[int, int]], cut: int) -> None:
    table = [{"text": "é ä", "label": 1, "day": "2004-08-01"}, {"text": '"quoted", so', "label": 2, "day": ""}]
    content = bytearray(encode(name, table))
    for position, byte in damage:
        content[position % len(content)] = byte
    assert_rows_or_known_error(name, bytes(content[: cut % len(content)] if cut % 5 == 0 else content))


@relaxed
@given(
    st.sampled_from(["r.json", "r.jsonl"]), st.text(st.sampled_from('[]{}":,0123456789.eE+-ntfal\\u \n'), max_size=40)
)
def test_json_like_text_gives_rows_or_a_known_error(name: str, content: str) -> None:
    assert_rows_or_known_error(name, content.encode())


def test_blank_lines_are_skipped() -> None:
    assert read_bytes("r.csv", b"text,label\n\na,b\n\n") == [{"text": "a", "label": "b"}]
    assert read_bytes("r.jsonl", b'\n{"text": "a"}\n \n{"text": "b"}') == [{"text": "a"}, {"text": "b"}]


def test_ag_news_headerless_file_keeps_its_first_row() -> None:
    content = '"3","Wall St. Bears","Short-sellers, again"\n"4","Probe","Lands"\n'
    expected = [
        {"class": "3", "title": "Wall St. Bears", "description": "Short-sellers, again"},
        {"class": "4", "title": "Probe", "description": "Lands"},
    ]
    assert read_bytes("train.csv", content.encode()) == expected
    assert read_bytes("train.csv.gz", gzip.compress(content.encode("utf-8-sig"))) == expected


@pytest.mark.parametrize("first", ["5,title,text", "1,text", "1,title,text,more", "class,title,text"])
def test_only_rows_like_ag_news_are_read_without_a_header(first: str) -> None:
    header = first.split(",")
    assert read_bytes("r.csv", f"{first}\n{','.join('x' for _ in header)}".encode()) == [dict.fromkeys(header, "x")]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("r.csv", b"text,label\na,b\nonly one\n", "line 3: 1 fields, but the header has 2"),
        ("r.csv", b'text,label\n"two\nlines",b\na,b,c\n', "line 4: 3 fields, but the header has 2"),
        ("r.csv", b"text,text\na,b\n", "two columns have the same name: text, text"),
        ("r.csv", b"id,Label,id,Label\n1,a,2,b\n", "two columns have the same name: id, Label, id, Label"),
        ("r.csv", b'text,label\n"a" b,c\n', "line 2: "),
        ("r.csv", b'text,label\n"never closed,b\n', "line 2: unexpected end of data"),
        ("r.csv", b"text,label\ngood,b\ncaf\xe9,b\n", "line 3: not valid UTF-8 (byte 0xe9, position 4)"),
        ("r.tsv", b"te\xffxt\tlabel\n", "line 1: not valid UTF-8 (byte 0xff, position 3)"),
        ("r.tsv", "text\tlabel\na\tb\n".encode("utf-16") + b"a", "not valid UTF-16: truncated data"),
        ("r.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', "line 2: not valid UTF-8 (byte 0xff, position 11)"),
        ("r.jsonl", b'{"text": "a"}\n\n{"text": \n', "line 3: not valid JSON"),
        ("r.jsonl", b'{"text": "a"}\n["b"]\n', "line 2: expected an object, got list"),
        ("r.jsonl", b'{"a": ' + b"9" * 5000 + b"}\n", "line 1: not readable JSON"),
        ("r.jsonl", b"[" * 100_000, "line 1: JSON nested too deep"),
        ("r.json", b'[{"text": "a"},\n {"text": b}]', "line 2: not valid JSON"),
        ("r.json", b'{"of": {"who": "a"}}', "expected a list of objects"),
        ("r.json", b'[{"text": "a"}, "b"]', "item 1: expected an object, got str"),
        ("r.json", b'[\n"\xc3"]', "line 2: not valid UTF-8"),
        ("r.parquet", b"PAR1 but nothing else", "not a readable parquet file"),
        ("r.parquet", b"text,label\na,b\n", "not a readable parquet file"),
        ("r.csv.gz", b"\x1f\x8btext,label\na,b\n", "broken gzip file"),
        ("r.parquet.gz", b"\x1f\x8btext,label\na,b\n", "broken gzip file"),
    ],
)
def test_an_error_names_its_line(name: str, content: bytes, complaint: str) -> None:
    message = get_error(name, content).message
    assert name in message
    assert complaint in message


@pytest.mark.parametrize("name", [name for name in ALL_NAMES if name.endswith(".gz")])
def test_a_truncated_or_corrupt_gzip_file_is_a_data_error(name: str) -> None:
    content = encode(name, [{"text": f"number {i} {i * i}", "label": "a"} for i in range(200)])
    assert "broken gzip file" in get_error(name, content[: len(content) // 2]).message
    corrupt = content[:40] + bytes(200) + content[240:]
    assert "broken gzip file" in get_error(name, corrupt).message


def test_invalid_utf8_in_a_gzip_file_is_named_with_its_line() -> None:
    assert "line 2: not valid UTF-8" in get_error("r.csv.gz", gzip.compress(b"text,label\n\xe9,a\n")).message


def test_text_that_is_no_text_in_a_parquet_file_is_a_data_error() -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": ["mark me"]}), buffer, compression="none", use_dictionary=False)
    broken = buffer.getvalue().replace(b"mark", b"\xff\xfe\xfd\xfc")
    (row,) = read_bytes("r.parquet", broken)
    with pytest.raises(ValueError, match="not valid UTF-8"):
        row_columns.text_of(row, "text")


def test_a_date_out_of_range_affects_its_cell_only() -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": ["a goal"], "when": pa.array([2**62], pa.timestamp("us"))}), buffer)
    assert read_bytes("r.parquet", buffer.getvalue()) == [{"text": "a goal", "when": row_columns.UNREADABLE}]


def test_parquet_columns_of_other_types_are_read() -> None:
    day = datetime.date(2004, 8, 1)
    buffer = io.BytesIO()
    pq.write_table(pa.table({"day": [day], "score": [0.5], "tags": [["a", "b"]], "note": [None]}), buffer)
    assert read_bytes("r.pq", buffer.getvalue()) == [{"day": day, "score": 0.5, "tags": ["a", "b"], "note": None}]


def test_columns_of_all_rows_are_in_order_of_appearance() -> None:
    assert readers.columns([{"b": 1}, {"a": 1, "b": 2}, {}, {"c": 0}]) == ["b", "a", "c"]
    assert readers.columns([]) == []
