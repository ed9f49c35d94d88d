"""Labelled rows: every form they come in, their labels, and what cannot be trained on."""

import gzip
import math
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsbert.data import row_columns
from newsbert.data.dataset import load_dataset
from newsbert.errors import DataError, NewsbertError, UsageError
from tests.support.tables import AG_NEWS, Table, expected, labelled, load_table, pairs, refused, relaxed, write

# --- forms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gz", ["", ".gz"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_every_format_loads_to_the_same_data_set(kind: str, gz: str) -> None:
    table = labelled(["Économie", "World", "Sport & loisirs"])
    dataset = load_table(table, f"rows.{kind}{gz}")
    assert sorted(pairs(dataset)) == expected(table)
    assert dataset.label_names == ("Sport & loisirs", "World", "Économie")
    assert dataset.notes == ()
    assert dataset.digest == load_table(table).digest  # jsonl


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.json"])
def test_a_byte_order_mark_is_no_part_of_the_data(name: str, tmp_path: Path) -> None:
    table = labelled(["a", "b"])
    file = tmp_path / name
    write(file, table)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert sorted(pairs(load_dataset(str(file)))) == expected(table)


@pytest.mark.parametrize("column", ["text", "description"])
def test_title_and_text_are_joined_with_a_space(column: str) -> None:
    table = [
        {"title": f"Title\\{n} ", column: f" body &amp; <b>soul</b> {n}", "label": label}
        for n in range(5)
        for label in ("a", "b")
    ]
    for n, row in enumerate(table):
        row[column] += f" {n}"
    texts = {text for text, _ in pairs(load_table(table))}
    assert texts == {f"Title {n // 2} body & soul {n // 2} {n}" for n in range(10)}


def test_titles_are_joined_if_the_first_row_has_none() -> None:
    table = labelled(["a", "b"])
    table[3]["title"] = "Headline"
    assert f"Headline {table[3]['text']}" in dict(pairs(load_table(table)))


def test_a_title_or_a_text_may_be_missing_but_not_both() -> None:
    table = labelled(["a", "b"])
    table += [
        {"title": "only a title", "text": None, "label": "a"},
        {"title": None, "text": "only a text", "label": "b"},
        {"title": "", "text": " <br> ", "label": "b"},
        {"title": None, "text": None, "label": "b"},
    ]
    dataset = load_table(table)
    label_by_text = dict(pairs(dataset))
    assert len(label_by_text) == 12
    assert (label_by_text["only a title"], label_by_text["only a text"]) == ("a", "b")
    assert dataset.notes == ("2 rows without text or label were left out",)


def test_text_and_label_columns_can_be_named() -> None:
    table = [
        {"title": f"title {n}", "text": "always the same", "body": f"body {n}", "label": "x", "topic": topic}
        for n, topic in enumerate(["a", "b"] * 5)
    ]
    dataset = load_table(table, text_column="body", label_column="topic")
    assert sorted(pairs(dataset)) == sorted((row["body"], row["topic"]) for row in table)


@pytest.mark.parametrize("gz", ["", ".gz"])
def test_the_headerless_ag_news_file_is_recognized(gz: str, tmp_path: Path) -> None:
    rows = [(n % 4 + 1, f"Title {n}", f"Body {n}") for n in range(40)]
    content = "".join(f'"{label}","{title}","{body}"\n' for label, title, body in rows).encode()
    file = tmp_path / f"train.csv{gz}"
    file.write_bytes(gzip.compress(content) if gz else content)
    dataset = load_dataset(str(file))
    assert dataset.label_names == ("1", "2", "3", "4")  # stars are counted in the same way
    assert "--labels names the classes" in dataset.notes[0]
    assert sorted(pairs(dataset)) == sorted((f"{title} {body}", str(label)) for label, title, body in rows)


def test_ag_news_labels_can_be_renamed(tmp_path: Path) -> None:
    names = ("Welt", "Sport", "Wirtschaft", "Technik")
    (tmp_path / "r.csv").write_text("".join(f"{n % 4 + 1},t {n},b\n" for n in range(20)))
    dataset = load_dataset(str(tmp_path / "r.csv"), labels=names)
    assert dataset.label_names == names
    assert dict(pairs(dataset))["t 6 b"] == names[6 % 4]


# --- labels -----------------------------------------------------------------------------------------------------------


@relaxed
@given(
    st.lists(
        st.one_of(st.text(min_size=1, max_size=12), st.from_regex(r"-?[0-9]{1,20}", fullmatch=True)).filter(
            lambda name: name.isprintable() and name == str(row_columns.label_of({"label": name}, "label"))
        ),
        min_size=2,
        max_size=6,
        unique=True,
    ),
    st.sampled_from(["rows.jsonl", "rows.csv", "rows.tsv.gz", "rows.parquet"]),
)
def test_any_string_is_a_label(names: list[str], file: str) -> None:
    table = labelled(names, per_label=3)
    dataset = load_table(table, file)
    assert sorted(pairs(dataset)) == expected(table)
    assert sorted(dataset.label_names) == sorted(names)


@relaxed
@given(st.lists(st.integers(-(10**20), 10**20), min_size=2, max_size=6, unique=True))
def test_integer_labels_are_ordered_as_numbers(ids: list[int]) -> None:
    table = labelled(ids, per_label=3)
    dataset = load_table(table)
    assert sorted(pairs(dataset)) == expected(table)
    if all(abs(number) < 10**18 for number in ids):
        assert dataset.label_names == tuple(str(number) for number in sorted(ids))
        assert load_table(table, "rows.csv").digest == dataset.digest  # there they are text


@pytest.mark.parametrize(
    ("form", "file"),
    [(int, "rows.csv"), (int, "rows.jsonl"), (int, "rows.parquet"), (float, "rows.jsonl"), (float, "rows.parquet")],
)
def test_integer_labels_are_named_with_labels(form: type, file: str) -> None:
    names = ("World", "Sports", "Science & Technik", "Économie", "Business")
    table = labelled([form(index) for index in range(5)])
    dataset = load_table(table, file, labels=names)
    assert dataset.label_names == names
    assert sorted(pairs(dataset)) == sorted((row["text"], names[int(row["label"])]) for row in table)


def test_the_labels_option_sets_the_order() -> None:
    dataset = load_table(labelled(["b", "c", "a"]), labels=("c", "a", "b"))
    assert dataset.label_names == ("c", "a", "b")
    assert sorted(pairs(dataset)) == expected(labelled(["b", "c", "a"]))


def test_the_labels_option_takes_numeric_names() -> None:
    dataset = load_table(labelled([20, 10]), labels=("10", "20"))
    assert dataset.label_names == ("10", "20")
    assert sorted(pairs(dataset)) == expected(labelled([20, 10]))


def test_spaces_around_a_label_are_removed() -> None:
    table = [{"text": f"t {n}", "label": label} for n, label in enumerate(["a", " a ", "b b", "b  b\n"] * 3)]
    assert load_table(table).label_names == ("a", "b b")


def test_booleans_are_labels() -> None:
    assert load_table(labelled([True, False])).label_names == ("false", "true")


@pytest.mark.parametrize("label", [2, 2.0, "2", -1, "Sport", 1.5])
def test_an_unknown_label_is_named_with_its_row_and_the_labels(label: object) -> None:
    table = labelled([0, 1])
    table[6]["label"] = label
    named = str(label).removesuffix(".0")
    refused(table, "row 7, column 'label': unknown label", named, "World, Sports (ids 0 to 1)", labels=AG_NEWS[:2])


@pytest.mark.parametrize("label", [None, "", "  ", math.nan, "nan", "NaN", "\u200b"])
def test_rows_without_label_are_skipped_and_counted(label: object) -> None:
    table = labelled(["a", "b"])
    table[4]["label"] = label
    del table[5]["label"]
    dataset = load_table(table)
    assert (len(pairs(dataset)), dataset.notes) == (8, ("2 rows without text or label were left out",))


def test_a_missing_number_in_a_parquet_file_is_no_label(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": [f"t {n}" for n in range(18)], "label": [0.0, 1.0, math.nan] * 6}), file)
    dataset = load_dataset(str(file))
    assert (dataset.label_names, dataset.notes) == (("0", "1"), ("6 rows without text or label were left out",))


@pytest.mark.parametrize(
    ("label", "message"), [(["a", "b"], "a row has one label"), ({"name": "a"}, "a label must be a text or a number")]
)
def test_a_label_that_is_neither_text_nor_number_is_refused(label: object, message: str) -> None:
    table = labelled(["a", "b"])
    table[0]["label"] = label
    refused(
        table, "a row has one label" if isinstance(label, list) else "a label must be a text or a number", repr(label)
    )


def test_a_label_named_twice_is_a_usage_error() -> None:
    refused(labelled([0, 1]), "World, World", kind=UsageError, labels=("World", "World"))


def test_a_label_without_rows_is_refused() -> None:
    refused(labelled([0, 1]), "'Business'", "no row", labels=AG_NEWS[:3])


# --- what cannot be trained on ----------------------------------------------------------------------------------------


def test_a_missing_text_column_is_named_with_the_columns() -> None:
    assert "--text-column" in str(refused(labelled("ab", text="body"), "no column 'text'", "body, label").hint)
    refused(labelled("ab"), "no column 'headline'", "text, label", text_column="headline")


def test_a_missing_label_column_is_named_with_the_columns() -> None:
    table = [{"text": f"t {n}", "topic": "a"} for n in range(5)]
    assert "--label-column" in str(refused(table, "no column 'label'", "text, topic").hint)
    refused(labelled("ab"), "no column 'topic'", "text, label", label_column="topic")


def test_rows_of_one_class_only_are_refused() -> None:
    refused(labelled(["Sports"]), "all 5 rows have the label 'Sports'")


@pytest.mark.parametrize(("rows", "words"), [(1, "only one row"), (2, "only 2 rows")])
def test_a_class_with_too_few_rows_for_all_splits_is_named(rows: int, words: str) -> None:
    table = [*labelled(["a", "b"]), *({"text": f"rare {n}", "label": "Rare"} for n in range(rows))]
    refused(table, "'Rare'", words, "needs 3")


def test_rows_without_any_text_are_refused() -> None:
    refused([{"text": " ", "label": label} for label in "abab"], "no rows to train on")


@pytest.mark.parametrize("value", [["a"], {"text": "a"}])
def test_a_text_of_another_type_is_named_with_its_row(value: object) -> None:
    table = labelled(["a", "b"])
    table[2]["text"] = value
    table[4]["text"] = value
    refused(table, "row 3, column 'text'", repr(value), "; 1 more row has no text")


@pytest.mark.parametrize(("value", "text"), [(1984, "1984"), (1984.0, "1984"), (0.5, "0.5")])
def test_a_number_is_a_text_in_every_format(value: object, text: str) -> None:
    table = labelled(["a", "b"])
    table[2]["text"] = value
    assert (text, "a") in pairs(load_table(table))


@pytest.mark.parametrize(
    "path",
    ["missing.csv", "./missing", "/no/such/place", "~/missing.jsonl", "~nosuchuser/rows.csv", "a/b/c", "nul\0.csv"],
)
def test_a_missing_file_is_a_usage_error_that_names_it(path: str) -> None:
    with pytest.raises(UsageError, match="no such file") as caught:
        load_dataset(path)
    assert repr(path) in caught.value.message
    assert "sample" in str(caught.value.hint)


def test_a_path_that_cannot_be_a_file_name_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="cannot be read: File name too long"):
        load_dataset(f"{'x' * 5000}.csv")


def test_a_file_of_another_kind_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "rows.xlsx").write_bytes(b"PK")
    with pytest.raises(UsageError, match="no known format"):
        load_dataset(str(tmp_path / "rows.xlsx"))


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("r.csv", b"", "has no rows"),
        ("r.csv", b"text,label\na,b\nb,\xff\n", "line 3: not valid UTF-8"),
        ("r.csv.gz", b"\x1f\x8btext,label\n", "broken gzip file"),
        ("r.parquet", b"PAR1PAR1", "not a readable parquet file"),
        ("r.jsonl", b'{"text": "a", "label": "b"}\n{', "line 2: not valid JSON"),
    ],
)
def test_a_broken_file_is_a_data_error(name: str, content: bytes, complaint: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=complaint):
        load_dataset(str(tmp_path / name))


@relaxed
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["text", "title", "description", "label", "split"]),
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.text(max_size=3)
            | st.lists(st.text(), max_size=1),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_any_rows_are_loaded_or_refused_with_a_reason(table: Table) -> None:
    try:
        dataset = load_table(table)
    except NewsbertError as error:
        assert error.message
        assert error.hint
    else:
        assert len(dataset.label_names) >= 2
        assert set(dataset.train.labels) == set(range(len(dataset.label_names)))


# --- the bundled sample -----------------------------------------------------------------------------------------------


def test_the_sample_is_balanced_and_repeats_no_text() -> None:
    dataset = load_dataset()
    assert dataset.name == "sample"
    assert dataset.label_names == AG_NEWS
    assert dataset.notes == ()
    texts = [text for text, _ in pairs(dataset)]
    assert len(texts) == len(set(texts)) == 440
    assert Counter(label for _, label in pairs(dataset)) == dict.fromkeys(AG_NEWS, 110)
    # 44 to test on; of the other 396 a tenth, 40, to validate on
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [356, 40, 44]
