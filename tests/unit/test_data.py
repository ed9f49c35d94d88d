"""Loading labelled rows: every form they come in, their labels, their splits, and what cannot be trained on."""

import gzip
import json
import math
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from newsbert import data
from newsbert.data import Dataset, Split
from newsbert.errors import DataError, NewsbertError, UsageError
from tests.unit.test_rows import encode

relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
AG_NEWS = ("World", "Sports", "Business", "Sci/Tech")
Table = Sequence[dict[str, Any]]


def write(file: Path, table: Table) -> str:
    """Write rows in the format of the file's name; return the path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encode(file.name, table))
    return str(file)


def load_table(table: Table, name: str = "rows.jsonl", **options: Any) -> Dataset:
    with tempfile.TemporaryDirectory() as directory:
        return data.load(write(Path(directory) / name, table), **options)


def labelled(labels: Iterable[Any], each: int = 5, text: str = "text") -> list[dict[str, Any]]:
    """`each` rows for every label, all texts different."""
    return [{text: f"row {n} of {i}", "label": label} for n in range(each) for i, label in enumerate(labels)]


def pairs(dataset: Dataset, *splits: str) -> list[tuple[str, str]]:
    """(text, label name) of all rows, or of those of some splits."""
    chosen: list[Split] = [getattr(dataset, split) for split in splits or ("train", "validation", "test")]
    return [
        (text, dataset.label_names[label])
        for split in chosen
        for text, label in zip(split.texts, split.labels, strict=True)
    ]


def expected(table: Table, label: str = "label") -> list[tuple[str, str]]:
    return sorted((row["text"], str(row[label])) for row in table)


def refused(table: Table, *words: str, kind: type[NewsbertError] = DataError, **options: Any) -> NewsbertError:
    with pytest.raises(kind) as caught:
        load_table(table, **options)
    for word in words:
        assert word in caught.value.message
    assert caught.value.hint
    return caught.value


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
    assert sorted(pairs(data.load(str(file)))) == expected(table)


@pytest.mark.parametrize("column", ["text", "description"])
def test_title_and_text_are_joined_with_one_blank(column: str) -> None:
    table = [
        {"title": f"Title\\{n} ", column: f" body &amp; <b>soul</b> {n}", "label": label}
        for n in range(5)
        for label in ("a", "b")
    ]
    for n, row in enumerate(table):
        row[column] += f" {n}"
    texts = {text for text, _ in pairs(load_table(table))}
    assert texts == {f"Title {n // 2} body & soul {n // 2} {n}" for n in range(10)}


def test_a_title_is_joined_also_if_the_first_row_has_none() -> None:
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
    found = dict(pairs(dataset))
    assert len(found) == 12
    assert (found["only a title"], found["only a text"]) == ("a", "b")
    assert dataset.notes == ("2 rows without text or label were left out",)


def test_text_and_label_columns_can_be_named() -> None:
    table = [
        {"title": f"title {n}", "text": "always the same", "body": f"body {n}", "label": "x", "topic": topic}
        for n, topic in enumerate(["a", "b"] * 5)
    ]
    dataset = load_table(table, text_column="body", label_column="topic")
    assert sorted(pairs(dataset)) == sorted((row["body"], row["topic"]) for row in table)


@pytest.mark.parametrize("gz", ["", ".gz"])
def test_ag_news_headerless_file_is_known_its_first_row_included(gz: str, tmp_path: Path) -> None:
    rows = [(n % 4 + 1, f"Title {n}", f"Body {n}") for n in range(40)]
    content = "".join(f'"{label}","{title}","{body}"\n' for label, title, body in rows).encode()
    file = tmp_path / f"train.csv{gz}"
    file.write_bytes(gzip.compress(content) if gz else content)
    dataset = data.load(str(file))
    assert dataset.label_names == AG_NEWS
    assert sorted(pairs(dataset)) == sorted((f"{title} {body}", AG_NEWS[label - 1]) for label, title, body in rows)


def test_ag_news_labels_can_be_renamed(tmp_path: Path) -> None:
    names = ("Welt", "Sport", "Wirtschaft", "Technik")
    (tmp_path / "r.csv").write_text("".join(f"{n % 4 + 1},t {n},b\n" for n in range(20)))
    dataset = data.load(str(tmp_path / "r.csv"), labels=names)
    assert dataset.label_names == names
    assert dict(pairs(dataset))["t 6 b"] == names[6 % 4]


# --- labels -----------------------------------------------------------------------------------------------------------


@relaxed
@given(
    st.lists(
        st.one_of(
            st.text(min_size=1, max_size=12), st.from_regex(r"-?[0-9]{1,20}", fullmatch=True), st.just("nan")
        ).filter(lambda name: name.isprintable() and name == " ".join(name.split())),
        min_size=2,
        max_size=6,
        unique=True,
    ),
    st.sampled_from(["rows.jsonl", "rows.csv", "rows.tsv.gz", "rows.parquet"]),
)
def test_any_strings_are_labels_and_come_back_as_they_are(names: list[str], file: str) -> None:
    table = labelled(names, each=3)
    dataset = load_table(table, file)
    assert sorted(pairs(dataset)) == expected(table)
    assert sorted(dataset.label_names) == sorted(names)


@relaxed
@given(st.lists(st.integers(-(10**20), 10**20), min_size=2, max_size=6, unique=True))
def test_integer_labels_are_ordered_as_numbers_and_named_by_their_digits(ids: list[int]) -> None:
    table = labelled(ids, each=3)
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


def test_labels_give_the_order_of_names_too() -> None:
    dataset = load_table(labelled(["b", "c", "a"]), labels=("c", "a", "b"))
    assert dataset.label_names == ("c", "a", "b")
    assert sorted(pairs(dataset)) == expected(labelled(["b", "c", "a"]))


def test_names_that_are_numbers_are_names_with_labels_too() -> None:
    dataset = load_table(labelled([20, 10]), labels=("10", "20"))
    assert dataset.label_names == ("10", "20")
    assert sorted(pairs(dataset)) == expected(labelled([20, 10]))


def test_blanks_around_a_label_do_not_make_another_class() -> None:
    table = [{"text": f"t {n}", "label": label} for n, label in enumerate(["a", " a ", "b b", "b  b\n"] * 3)]
    assert load_table(table).label_names == ("a", "b b")


def test_booleans_are_labels() -> None:
    assert load_table(labelled([True, False])).label_names == ("false", "true")


@pytest.mark.parametrize("label", [2, 2.0, "2", -1, "Sport", 1.5])
def test_an_unknown_label_is_named_with_its_row_and_the_known_ones(label: object) -> None:
    table = labelled([0, 1])
    table[6]["label"] = label
    refused(
        table, "row 7: unknown label", str(label).removesuffix(".0"), "World, Sports (ids 0 to 1)", labels=AG_NEWS[:2]
    )


@pytest.mark.parametrize("label", [None, "", "  ", math.nan])
def test_a_row_without_label_is_named(label: object) -> None:
    table = labelled(["a", "b"])
    table[4]["label"] = label
    refused(table, "row 5 has no label")
    del table[4]["label"]
    refused(table, "row 5 has no label")
    refused([{**row, "split": "train"} for row in table], "row 5 has no label")


def test_a_missing_number_in_a_parquet_file_is_no_label(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": [f"t {n}" for n in range(6)], "label": [0.0, 1.0, math.nan] * 2}), file)
    with pytest.raises(DataError, match="row 3 has no label"):
        data.load(str(file))


@pytest.mark.parametrize("label", [["a", "b"], {"name": "a"}])
def test_a_label_that_is_neither_text_nor_number_is_refused(label: object) -> None:
    table = labelled(["a", "b"])
    table[0]["label"] = label
    refused(table, "a label must be a text or a number", repr(label))


def test_a_label_named_twice_is_a_usage_error() -> None:
    refused(labelled([0, 1]), "World, World", kind=UsageError, labels=("World", "World"))


def test_a_label_without_rows_is_refused() -> None:
    refused(labelled([0, 1]), "'Business'", "no row", labels=AG_NEWS[:3])


# --- splits -----------------------------------------------------------------------------------------------------------


@relaxed
@given(st.lists(st.integers(3, 40), min_size=2, max_size=6), st.integers(0, 2**32 - 1))
def test_drawn_splits_are_disjoint_complete_and_cover_every_class(counts: list[int], seed: int) -> None:
    table = [{"text": f"{i} {n}", "label": f"class {i}"} for i, count in enumerate(counts) for n in range(count)]
    dataset = load_table(table, seed=seed)
    assert sorted(pairs(dataset)) == expected(table)  # every row once: nothing lost, nothing in two splits
    for split in (dataset.train, dataset.validation, dataset.test):
        assert set(split.labels) == set(range(len(counts)))
    assert len(dataset.test) == max(round(0.1 * len(table)), len(counts))


@relaxed
@given(st.integers(3, 60), st.integers(2, 5))
def test_balanced_rows_give_balanced_splits(each: int, classes: int) -> None:
    dataset = load_table(labelled([f"class {i}" for i in range(classes)], each=each))
    for split in (dataset.train, dataset.validation, dataset.test):
        counts = Counter(split.labels).values()
        assert len(counts) == classes
        assert max(counts) - min(counts) <= (2 if split is dataset.train else 1)


def test_drawn_splits_hold_every_class_in_its_share() -> None:
    shares = {"a": 300, "b": 150, "c": 50}
    table = [{"text": f"{label} {n}", "label": label} for label, count in shares.items() for n in range(count)]
    dataset = load_table(table)
    count = {name: Counter(dict(pairs(dataset, name)).values()) for name in ("train", "validation", "test")}
    assert count["test"] == {"a": 30, "b": 15, "c": 5}
    left = {"a": 270, "b": 135, "c": 45}
    for label, rows in left.items():
        assert abs(count["validation"][label] - rows / 10) < 1
        assert count["train"][label] == rows - count["validation"][label]


def test_held_out_rows_are_no_more_than_are_of_use() -> None:
    table = [{"text": f"row {n}", "label": n % 2} for n in range(60_000)]
    dataset = load_table(table, labels=("even", "odd"))
    assert Counter(dataset.test.labels) == {0: 2_500, 1: 2_500}
    assert Counter(dataset.validation.labels) == {0: 1_000, 1: 1_000}
    assert len(dataset.train) == 60_000 - 7_000


def test_the_seed_decides_the_split() -> None:
    table = labelled(["a", "b", "c"], each=20)
    first, again, other = (load_table(table, seed=seed, samples=30) for seed in (1, 1, 2))
    for split in ("train", "validation", "test"):
        assert pairs(first, split) == pairs(again, split)
    assert first.digest == again.digest
    assert pairs(first, "test") != pairs(other, "test")
    assert first.digest != other.digest


def test_the_digest_tells_of_any_change_to_rows_or_labels() -> None:
    table = [{**row, "split": ("train", "dev", "test")[n % 3]} for n, row in enumerate(labelled([0, 1], each=9))]
    digests = [load_table(table).digest, load_table(table, labels=("a", "b")).digest]
    for position in range(3):  # a row of every split
        digests.append(
            load_table([{**row, "text": "new"} if n == position else row for n, row in enumerate(table)]).digest
        )
        changed = [{**row, "label": 1 - row["label"]} if n == position else row for n, row in enumerate(table)]
        digests.append(load_table(changed).digest)
    in_order = sorted(table, key=lambda row: ("train", "dev", "test").index(row["split"]))
    moved = [{**row, "split": "train"} if n == 6 else row for n, row in enumerate(in_order)]  # the first of dev
    assert [row["split"] for row in in_order[5:7]] == ["train", "dev"]
    digests.append(load_table(moved).digest)
    assert len(set(digests)) == len(digests)
    assert load_table(table, "other.csv.gz").digest == digests[0]
    assert all(len(digest) == 64 for digest in digests)


@pytest.mark.parametrize("validation", ["validation", "Valid", "val", "dev", " DEV ", "eval"])
def test_a_split_column_divides_the_rows(validation: str) -> None:
    table = labelled(["a", "b"], each=9)
    names = ("train", validation, "testing")
    dataset = load_table([{**row, "split": names[n % 3]} for n, row in enumerate(table)])
    for offset, split in enumerate(("train", "validation", "test")):
        assert pairs(dataset, split) == [(row["text"], row["label"]) for row in table[offset::3]]


def test_a_split_column_without_test_rows_has_them_drawn_from_training() -> None:
    table = [{**row, "split": "train" if n < 30 else "dev"} for n, row in enumerate(labelled(["a", "b"], each=20))]
    dataset = load_table(table)
    assert [text for text, _ in pairs(dataset, "validation")] == [row["text"] for row in table[30:]]
    assert sorted(pairs(dataset, "train", "test")) == expected(table[:30])
    assert Counter(dataset.test.labels) == {0: 2, 1: 1} or Counter(dataset.test.labels) == {0: 1, 1: 2}


@pytest.mark.parametrize("words", [("train", "holdout"), ("home", "away"), ("dev", "test"), ("train", "")])
def test_a_column_called_split_that_names_no_splits_is_an_ordinary_column(words: tuple[str, str]) -> None:
    table = [{**row, "split": words[n // 2 % 2]} for n, row in enumerate(labelled(["a", "b"], each=20))]
    dataset = load_table(table)
    assert len(dataset.test) == 4
    assert sorted(pairs(dataset)) == expected(table)


def test_a_directory_of_files_named_after_splits(tmp_path: Path) -> None:
    parts = {
        "train.csv": labelled(["a", "b"], each=9),
        "Test.jsonl.gz": [{"text": f"test {n}", "label": "ab"[n % 2]} for n in range(4)],
        "dev.parquet": [{"text": f"dev {n}", "label": "ab"[n % 2]} for n in range(6)],
    }
    for name, table in parts.items():
        write(tmp_path / name, table)
    (tmp_path / "README.md").write_text("train.csv, test, dev")
    (tmp_path / "test").mkdir()
    dataset = data.load(str(tmp_path))
    for split, name in (("train", "train.csv"), ("validation", "dev.parquet"), ("test", "Test.jsonl.gz")):
        assert pairs(dataset, split) == [(row["text"], row["label"]) for row in parts[name]]


def test_a_directory_of_ag_news_own_files(tmp_path: Path) -> None:
    for name, count in (("train", 40), ("test", 8)):
        lines = "".join(f'"{n % 4 + 1}","{name} {n}","body"\n' for n in range(count))
        (tmp_path / f"{name}.csv").write_text(lines)
    dataset = data.load(str(tmp_path))
    assert dataset.label_names == AG_NEWS
    assert pairs(dataset, "test") == [(f"test {n} body", AG_NEWS[n % 4]) for n in range(8)]
    assert len(dataset.train) == 36
    assert Counter(dataset.validation.labels) == dict.fromkeys(range(4), 1)


def test_two_files_for_one_split_are_a_usage_error(tmp_path: Path) -> None:
    for name in ("train.csv", "val.csv", "dev.jsonl"):
        write(tmp_path / name, labelled(["a", "b"]))
    with pytest.raises(UsageError, match="two files hold validation rows") as caught:
        data.load(str(tmp_path))
    assert "val.csv" in caught.value.message
    assert "dev.jsonl" in caught.value.message


def test_a_split_file_without_labels_is_named(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", labelled(["a", "b"]))
    write(tmp_path / "test.csv", [{"text": "unlabelled"}])
    with pytest.raises(DataError, match="row 1 of test has no label"):
        data.load(str(tmp_path))


# --- rows left out ----------------------------------------------------------------------------------------------------


def test_of_rows_with_the_same_text_the_first_is_kept_and_a_note_tells() -> None:
    table = labelled(["a", "b"], each=6)
    repeated = [{"text": f" {table[0]['text']} ", "label": "b"}, dict(table[5]), dict(table[5])]
    dataset = load_table([*table, *repeated])
    assert sorted(pairs(dataset)) == expected(table)
    assert dataset.notes == ("3 rows repeated another row's text and were left out",)


def test_training_rows_that_stand_in_the_test_rows_too_are_left_out() -> None:
    table = [{**row, "split": "train"} for row in labelled(["a", "b"], each=6)]
    held_out = [
        {"text": f"{table[0]['text']}\n", "label": "a", "split": "test"},
        {"text": "new", "label": "b", "split": "test"},
        {"text": table[3]["text"], "label": "b", "split": "dev"},
    ]
    dataset = load_table([*table, *held_out])
    assert pairs(dataset, "train") == [(row["text"], row["label"]) for n, row in enumerate(table) if n not in {0, 3}]
    assert len(dataset.test) == 2
    assert dataset.notes == ("2 training rows stood in validation or test rows too and were left out",)


# --- samples ----------------------------------------------------------------------------------------------------------


@relaxed
@given(st.lists(st.integers(4, 60), min_size=2, max_size=5), st.data())
def test_as_many_training_rows_are_used_as_asked_for(counts: list[int], draw: st.DataObject) -> None:
    table = [{"text": f"{i} {n}", "label": f"class {i}"} for i, count in enumerate(counts) for n in range(count)]
    whole = load_table(table)
    samples = draw.draw(st.integers(len(counts), len(whole.train)))
    dataset = load_table(table, samples=samples)
    assert len(dataset.train) == samples
    assert set(dataset.train.labels) == set(range(len(counts)))
    assert set(pairs(dataset, "train")) <= set(pairs(whole, "train"))
    assert [pairs(dataset, name) for name in ("validation", "test")] == [
        pairs(whole, name) for name in ("validation", "test")
    ]
    assert dataset.notes == ()


def test_samples_keep_the_shares_of_the_classes() -> None:
    table = [{"text": f"{n}", "label": "rare" if n % 10 == 0 else "common", "split": "train"} for n in range(200)]
    table += [
        {"text": f"{split} {label}", "label": label, "split": split}
        for split in ("dev", "test")
        for label in ("rare", "common")
    ]
    assert Counter(dict(pairs(load_table(table, samples=50), "train")).values()) == {"common": 45, "rare": 5}


def test_more_samples_than_rows_is_a_note_and_no_error() -> None:
    table = labelled(["a", "b"], each=20)  # 40 rows: 4 to test on, 4 of the other 36 to validate on
    dataset = load_table(table, samples=1000)
    assert len(dataset.train) == 32
    assert dataset.notes == ("--samples 1000 is more than the 32 training rows: all are used",)
    assert load_table(table, samples=32).notes == ()


@pytest.mark.parametrize("samples", [2, 1, 0, -5])
def test_fewer_samples_than_classes_is_a_usage_error(samples: int) -> None:
    refused(labelled("abc"), f"--samples {samples}", "3 classes", kind=UsageError, samples=samples)


# --- what cannot be trained on ----------------------------------------------------------------------------------------


def test_a_missing_text_column_is_named_with_the_columns_there_are() -> None:
    assert "--text-column" in str(refused(labelled("ab", text="body"), "no column 'text'", "body, label").hint)
    refused(labelled("ab"), "no column 'headline'", "text, label", text_column="headline")


def test_a_missing_label_column_is_named_with_the_columns_there_are() -> None:
    table = [{"text": f"t {n}", "topic": "a"} for n in range(5)]
    assert "--label-column" in str(refused(table, "no column 'label'", "text, topic").hint)
    refused(labelled("ab"), "no column 'topic'", "text, label", label_column="topic")


def test_rows_of_one_class_only_are_refused() -> None:
    refused(labelled(["Sports"]), "all 5 rows have the label 'Sports'")


@pytest.mark.parametrize(("rows", "words"), [(1, "only one row"), (2, "only 2 rows")])
def test_a_class_that_cannot_be_in_every_split_is_named(rows: int, words: str) -> None:
    table = [*labelled(["a", "b"]), *({"text": f"rare {n}", "label": "Rare"} for n in range(rows))]
    refused(table, "'Rare'", words, "needs 3")


def test_rows_without_any_text_are_refused() -> None:
    refused([{"text": " ", "label": label} for label in "abab"], "no rows to train on")


@pytest.mark.parametrize("value", [5, ["a"], {"text": "a"}, True])
def test_a_text_that_is_no_text_is_named_with_its_row(value: object) -> None:
    table = labelled(["a", "b"])
    table[2]["text"] = value
    refused(table, "row 3", repr(value))


@pytest.mark.parametrize(
    "path",
    ["missing.csv", "./missing", "/no/such/place", "~/missing.jsonl", "~nosuchuser/rows.csv", "a/b/c", "nul\0.csv"],
)
def test_a_missing_file_is_a_usage_error_that_names_it(path: str) -> None:
    with pytest.raises(UsageError, match="no such file") as caught:
        data.load(path)
    assert repr(path) in caught.value.message
    assert "sample" in str(caught.value.hint)


def test_a_path_that_cannot_be_a_file_name_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="cannot be read: File name too long"):
        data.load(f"{'x' * 5000}.csv")


def test_a_file_of_another_kind_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "rows.xlsx").write_bytes(b"PK")
    with pytest.raises(UsageError, match="no known format"):
        data.load(str(tmp_path / "rows.xlsx"))


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("r.csv", b"", "has no rows"),
        ("r.csv", b"text,label\na,b\nb,\xff\n", "line 3: not valid UTF-8"),
        ("r.csv.gz", b"text,label\n", "broken gzip file"),
        ("r.parquet", b"PAR1PAR1", "not a readable parquet file"),
        ("r.jsonl", b'{"text": "a", "label": "b"}\n{', "line 2: not valid JSON"),
    ],
)
def test_a_broken_file_is_a_data_error(name: str, content: bytes, complaint: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=complaint):
        data.load(str(tmp_path / name))


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
    dataset = data.load()
    assert dataset.name == "sample"
    assert dataset.label_names == AG_NEWS
    assert dataset.notes == ()
    texts = [text for text, _ in pairs(dataset)]
    assert len(texts) == len(set(texts)) == 440
    assert Counter(label for _, label in pairs(dataset)) == dict.fromkeys(AG_NEWS, 110)
    # 44 to test on; of the other 396 a tenth, 40, to validate on
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [356, 40, 44]


# --- the Hugging Face Hub ---------------------------------------------------------------------------------------------

# `datasets` reads its environment when it is imported: a process of its own, once for all tests.
HUB_PROGRAM = """
import json, sys
from newsbert import data
from newsbert.errors import NewsbertError

answers = []
for name, options in json.loads(sys.stdin.read()):
    try:
        found = data.load(name, **options)
        splits = {split: [list(getattr(found, split).texts), getattr(found, split).labels.tolist()] for split in ("train", "validation", "test")}
        answers.append({"labels": found.label_names, "notes": found.notes, **splits})
    except NewsbertError as error:
        answers.append({"error": type(error).__name__, "message": error.message, "hint": error.hint})
print(json.dumps(answers))
"""  # noqa: E501
HUB_CARD = """---
dataset_info:
  features:
  - name: text
    dtype: string
{features}
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
  - split: test
    path: data/test-*
---
# A data set
"""


def class_label(column: str, names: Sequence[str]) -> str:
    lines = [f"  - name: {column}", "    dtype:", "      class_label:", "        names:"]
    return "\n".join([*lines, *(f"          '{index}': {name}" for index, name in enumerate(names))])


def write_hub_layout(directory: Path, features: str, **splits: Table) -> None:
    for split, table in splits.items():
        write(directory / "data" / f"{split}-00000-of-00001.parquet", table)
    (directory / "README.md").write_text(HUB_CARD.format(features=features))


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What `data.load` answers in a working directory with data sets in the Hub's layout, offline."""
    directory = tmp_path_factory.mktemp("hub")
    ag_news = {
        split: [{"text": f"{split} {n}", "label": n % 4} for n in range(count)]
        for split, count in (("train", 40), ("test", 8))
    }
    write_hub_layout(directory / "ag_news", class_label("label", AG_NEWS), **ag_news)
    fine = {
        split: [{"text": f"{split} {n}", "coarse": n % 2, "fine": n % 3} for n in range(count)]
        for split, count in (("train", 30), ("test", 6))
    }
    both = class_label("coarse", ["Ja", "Nein"]) + "\n" + class_label("fine", ["rot", "grün", "blau"])
    write_hub_layout(directory / "two_labels", both, **fine)
    hidden = [{"text": f"hidden {n}", "label": -1} for n in range(5)]
    write_hub_layout(directory / "hidden", class_label("label", AG_NEWS), train=ag_news["train"], test=hidden)
    (directory / "empty").mkdir()
    (directory / "broken" / "data").mkdir(parents=True)
    (directory / "broken" / "data" / "train-00000-of-00001.parquet").write_bytes(b"PAR1 nonsense")
    calls: dict[str, tuple[str, dict[str, Any]]] = {
        "by name": ("ag_news", {}),
        "by path": (str(directory / "ag_news"), {}),
        "renamed": ("ag_news", {"labels": ["W", "S", "B", "T"], "samples": 8}),
        "fine": ("two_labels", {"label_column": "fine"}),
        "coarse": ("two_labels", {"label_column": "coarse"}),
        "hidden": ("hidden", {}),
        "empty": ("empty", {}),
        "broken": ("broken", {}),
        "unreachable": ("nobody/nothing", {}),
        "unreachable, one word": ("imdb", {}),
        "no name": ("not a name!", {}),
    }
    answer = subprocess.run(
        [sys.executable, "-c", HUB_PROGRAM],
        input=json.dumps(list(calls.values())),
        capture_output=True,
        text=True,
        check=True,
        cwd=directory,
        env={
            **os.environ,
            "NEWSBERT_CACHE_DIR": str(directory / "cache"),
            "HF_HOME": str(directory / "home"),
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
        },
    )
    return dict(zip(calls, json.loads(answer.stdout), strict=True))


def test_a_directory_in_the_hubs_layout_takes_its_label_names_from_the_features(hub: dict[str, Any]) -> None:
    found = hub["by name"]
    assert tuple(found["labels"]) == AG_NEWS
    assert found["test"] == [[f"test {n}" for n in range(8)], [n % 4 for n in range(8)]]
    texts, labels = ([*a, *b] for a, b in zip(found["train"], found["validation"], strict=True))
    assert dict(zip(texts, labels, strict=True)) == {f"train {n}": n % 4 for n in range(40)}
    assert sorted(found["validation"][1]) == [0, 1, 2, 3]
    assert found["notes"] == []


def test_a_hub_directory_loads_by_its_path_as_by_its_name(hub: dict[str, Any]) -> None:
    assert hub["by path"] == hub["by name"]


def test_labels_rename_the_hubs_classes(hub: dict[str, Any]) -> None:
    assert hub["renamed"]["labels"] == ["W", "S", "B", "T"]
    assert hub["renamed"]["test"] == hub["by name"]["test"]
    assert sorted(hub["renamed"]["train"][1]) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_label_names_are_those_of_the_label_column_asked_for(hub: dict[str, Any]) -> None:
    assert hub["fine"]["labels"] == ["rot", "grün", "blau"]
    assert hub["fine"]["test"][1] == [n % 3 for n in range(6)]
    assert hub["coarse"]["labels"] == ["Ja", "Nein"]
    assert hub["coarse"]["test"][1] == [n % 2 for n in range(6)]


def test_hidden_test_labels_are_left_out_and_test_rows_drawn_instead(hub: dict[str, Any]) -> None:
    found = hub["hidden"]
    assert found["notes"] == ["5 rows without text or label were left out"]
    assert sorted(found["test"][1]) == [0, 1, 2, 3]
    assert sorted([*found["train"][0], *found["validation"][0], *found["test"][0]]) == sorted(
        f"train {n}" for n in range(40)
    )


@pytest.mark.parametrize("call", ["unreachable", "unreachable, one word", "no name", "empty", "broken"])
def test_a_data_set_that_cannot_be_loaded_is_a_data_error_that_names_it(call: str, hub: dict[str, Any]) -> None:
    name = {"unreachable": "nobody/nothing", "unreachable, one word": "imdb", "no name": "not a name!"}.get(call, call)
    assert hub[call]["error"] == "DataError"
    assert f"no data set {name!r} could be loaded: " in hub[call]["message"]
    assert "--data" in hub[call]["hint"]
