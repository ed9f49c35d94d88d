"""Labelled rows: their splits, rows that are left out, and samples."""

import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsbert.data import evaluation_set as labelled_rows
from newsbert.data.dataset import load_dataset
from newsbert.errors import UsageError
from tests.support.tables import AG_NEWS, expected, labelled, load_table, pairs, refused, relaxed, write

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
def test_balanced_rows_give_balanced_splits(per_label: int, classes: int) -> None:
    dataset = load_table(labelled([f"class {i}" for i in range(classes)], per_label=per_label))
    for split in (dataset.train, dataset.validation, dataset.test):
        counts = Counter(split.labels).values()
        assert len(counts) == classes
        assert max(counts) - min(counts) <= (2 if split is dataset.train else 1)


def test_drawn_splits_are_stratified() -> None:
    shares = {"a": 300, "b": 150, "c": 50}
    table = [{"text": f"{label} {n}", "label": label} for label, count in shares.items() for n in range(count)]
    dataset = load_table(table)
    count = {name: Counter(dict(pairs(dataset, name)).values()) for name in ("train", "validation", "test")}
    assert count["test"] == {"a": 30, "b": 15, "c": 5}
    left = {"a": 270, "b": 135, "c": 45}
    for label, rows in left.items():
        assert abs(count["validation"][label] - rows / 10) < 1
        assert count["train"][label] == rows - count["validation"][label]


def test_the_number_of_held_out_rows_is_limited() -> None:
    table = [{"text": f"row {n}", "label": n % 2} for n in range(60_000)]
    dataset = load_table(table, labels=("even", "odd"))
    assert Counter(dataset.test.labels) == {0: 2_500, 1: 2_500}
    assert Counter(dataset.validation.labels) == {0: 2_500, 1: 2_500}
    assert len(dataset.scored) == 2_000
    assert len(dataset.train) == 60_000 - 10_000


def test_the_seed_decides_the_split() -> None:
    table = labelled(["a", "b", "c"], per_label=20)
    first, again, other = (load_table(table, seed=seed, samples=30) for seed in (1, 1, 2))
    for split in ("train", "validation", "test"):
        assert pairs(first, split) == pairs(again, split)
    assert first.digest == again.digest
    assert pairs(first, "test") != pairs(other, "test")
    assert first.digest != other.digest


def test_the_digest_changes_with_any_row_or_label() -> None:
    table = [{**row, "split": ("train", "dev", "test")[n % 3]} for n, row in enumerate(labelled([0, 1], per_label=9))]
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
    table = labelled(["a", "b"], per_label=9)
    names = ("train", validation, "testing")
    dataset = load_table([{**row, "split": names[n % 3]} for n, row in enumerate(table)])
    for offset, split in enumerate(("train", "validation", "test")):
        assert pairs(dataset, split) == [(row["text"], row["label"]) for row in table[offset::3]]


def test_missing_test_rows_are_drawn_from_training() -> None:
    table = [{**row, "split": "train" if n < 30 else "dev"} for n, row in enumerate(labelled(["a", "b"], per_label=20))]
    dataset = load_table(table)
    assert [text for text, _ in pairs(dataset, "validation")] == [row["text"] for row in table[30:]]
    assert sorted(pairs(dataset, "train", "test")) == expected(table[:30])
    assert Counter(dataset.test.labels) == {0: 2, 1: 1} or Counter(dataset.test.labels) == {0: 1, 1: 2}


@pytest.mark.parametrize("words", [("home", "away"), ("dev", "test")])
def test_a_split_column_without_split_names_is_an_ordinary_column(words: tuple[str, str]) -> None:
    table = [{**row, "split": words[n // 2 % 2]} for n, row in enumerate(labelled(["a", "b"], per_label=20))]
    dataset = load_table(table)
    assert len(dataset.test) == 4
    assert sorted(pairs(dataset)) == expected(table)


@pytest.mark.parametrize("other", ["holdout", "", "unsup"])
def test_rows_of_other_splits_are_skipped_and_counted(other: str) -> None:
    table = [
        {**row, "split": ("train", "test", other)[n % 3]} for n, row in enumerate(labelled(["a", "b"], per_label=30))
    ]
    dataset = load_table(table)
    assert pairs(dataset, "test") == [(row["text"], row["label"]) for row in table[1::3]]
    assert not {text for text, _ in pairs(dataset)} & {row["text"] for row in table[2::3]}
    message = f"rows of other splits than train, validation and test are left out: {other!r} (20 rows)"
    assert message in dataset.notes
    with tempfile.TemporaryDirectory() as directory:
        write(Path(directory) / "rows.csv", table)
        scored = labelled_rows.labelled(f"{directory}/rows.csv", ["a", "b"])
        assert (len(scored.items), scored.split) == (20, "test")
        assert message in scored.notes


def test_files_named_after_splits_are_the_splits(tmp_path: Path) -> None:
    parts = {
        "train.csv": labelled(["a", "b"], per_label=9),
        "Test.jsonl.gz": [{"text": f"test {n}", "label": "ab"[n % 2]} for n in range(4)],
        "dev.parquet": [{"text": f"dev {n}", "label": "ab"[n % 2]} for n in range(6)],
    }
    for name, table in parts.items():
        write(tmp_path / name, table)
    (tmp_path / "README.md").write_text("train.csv, test, dev")
    (tmp_path / "test").mkdir()
    dataset = load_dataset(str(tmp_path))
    for split, name in (("train", "train.csv"), ("validation", "dev.parquet"), ("test", "Test.jsonl.gz")):
        assert pairs(dataset, split) == [(row["text"], row["label"]) for row in parts[name]]


def test_a_directory_of_ag_news_files_is_read(tmp_path: Path) -> None:
    for name, count in (("train", 40), ("test", 8)):
        lines = "".join(f'"{n % 4 + 1}","{name} {n}","body"\n' for n in range(count))
        (tmp_path / f"{name}.csv").write_text(lines)
    dataset = load_dataset(str(tmp_path))
    assert dataset.label_names == ("1", "2", "3", "4")
    assert load_dataset(str(tmp_path), labels=AG_NEWS).label_names == AG_NEWS
    assert pairs(dataset, "test") == [(f"test {n} body", str(n % 4 + 1)) for n in range(8)]
    assert len(dataset.train) == 36
    assert Counter(dataset.validation.labels) == dict.fromkeys(range(4), 1)


def test_two_files_for_one_split_are_a_usage_error(tmp_path: Path) -> None:
    for name in ("train.csv", "val.csv", "dev.jsonl"):
        write(tmp_path / name, labelled(["a", "b"]))
    with pytest.raises(UsageError, match="two files hold validation rows") as caught:
        load_dataset(str(tmp_path))
    assert "val.csv" in caught.value.message
    assert "dev.jsonl" in caught.value.message


def test_a_split_file_without_labels_is_skipped_and_named(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", labelled(["a", "b"], per_label=20))
    test = write(tmp_path / "test.csv", [{"text": "unlabelled"}])
    dataset = load_dataset(str(tmp_path))
    assert dataset.notes == (f"{test} has no column 'label' and is left out",)
    assert len(dataset.test) == 4


# --- rows left out ----------------------------------------------------------------------------------------------------


def test_duplicate_texts_are_removed_with_a_note() -> None:
    table = labelled(["a", "b"], per_label=6)
    repeated = [{"text": f" {table[0]['text']} ", "label": "b"}, dict(table[5]), dict(table[5])]
    dataset = load_table([*table, *repeated])
    assert sorted(pairs(dataset)) == expected(table)
    assert dataset.notes == ("3 rows repeated another row's text and were left out",)


def test_training_rows_with_test_texts_are_removed() -> None:
    table = [{**row, "split": "train"} for row in labelled(["a", "b"], per_label=6)]
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
def test_max_train_samples_limits_the_training_rows(counts: list[int], draw: st.DataObject) -> None:
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


def test_samples_are_stratified() -> None:
    table = [{"text": f"{n}", "label": "rare" if n % 10 == 0 else "common", "split": "train"} for n in range(200)]
    table += [
        {"text": f"{split} {label}", "label": label, "split": split}
        for split in ("dev", "test")
        for label in ("rare", "common")
    ]
    assert Counter(dict(pairs(load_table(table, samples=50), "train")).values()) == {"common": 45, "rare": 5}


def test_more_samples_than_rows_is_a_note() -> None:
    table = labelled(["a", "b"], per_label=20)  # 40 rows: 4 to test on, 4 of the other 36 to validate on
    dataset = load_table(table, samples=1000)
    assert len(dataset.train) == 32
    assert dataset.notes == ("--max-train-samples 1000 is more than the 32 training rows: all are used",)
    assert load_table(table, samples=32).notes == ()


@pytest.mark.parametrize("samples", [2, 1, 0, -5])
def test_fewer_samples_than_classes_is_a_usage_error(samples: int) -> None:
    refused(labelled("abc"), f"--max-train-samples {samples}", "3 classes", kind=UsageError, samples=samples)
