"""Directories of rows as the world has them, and several files that are one set of rows."""

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from newsbert.api import init_config
from newsbert.data.dataset import load_dataset
from newsbert.errors import DataError
from tests.support.labelled_files import EVEN, JSON, LABELS, ROWS, TEXT


def _folders(directory: Path) -> None:
    for number, (text, label) in enumerate(ROWS):
        (directory / label).mkdir(parents=True, exist_ok=True)
        (directory / label / f"{number}.txt").write_text(text, encoding="utf-8")


def _split_folders(directory: Path) -> None:
    for split in ("train", "test"):
        _folders(directory / split)


def _competition(directory: Path) -> None:
    directory.mkdir()
    (directory / "train.csv").write_text(TEXT, encoding="utf-8")
    (directory / "test.csv").write_text("id,text\n0,news\n")
    (directory / "sample_submission.csv").write_text("id,label\n0,sport\n")


def _imdb(directory: Path) -> None:
    _split_folders(directory)
    (directory / "train" / "unsup").mkdir()
    (directory / "train" / "unsup" / "0_0.txt").write_text("no label")
    (directory / "train" / "urls_money.txt").write_text("http://a.example/")
    (directory / "imdb.vocab").write_text("the")


def _newsgroups(directory: Path) -> None:
    """Files without a suffix; with what macOS and editors leave beside them, and a folder without texts."""
    _folders(directory)
    for file in list(directory.glob("*/*.txt")):
        file.rename(file.with_suffix(""))
    for name in ("money/._1", "__MACOSX/money", "sport/notes.pdf"):
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text("x")
    (directory / "tech" / "more.txt").mkdir()
    (directory / "later").mkdir()


def _capitals(directory: Path) -> None:
    _folders(directory)
    for file in list(directory.glob("*/*.txt")):
        file.rename(file.with_suffix(".TXT"))


def _wrapped(directory: Path) -> None:
    _folders(directory / "bbc" / "news")


def _nested(directory: Path) -> None:
    _folders(directory)
    for number in (0, 3, 6):
        (directory / "money" / "more").mkdir(exist_ok=True)
        (directory / "money" / f"{number}.txt").rename(directory / "money" / "more" / f"{number}.txt")


def _spark(directory: Path) -> None:
    """Two parts as Spark writes them, with backslashes before quotes."""
    directory.mkdir()
    for part, part_rows in enumerate((ROWS[:15], ROWS[15:])):
        lines = [f'"He said \\"hi, {text}\\" there",{label}' for text, label in part_rows]
        (directory / f"part-0000{part}.csv").write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    for name in ("_SUCCESS", ".part-00000.csv.crc"):
        (directory / name).write_bytes(b"")


def _cased_splits(directory: Path) -> None:
    directory.mkdir()
    (directory / "train.csv").write_text(TEXT.replace("text,label", "Text,Label"), encoding="utf-8")
    (directory / "test.csv").write_text("text,label\nA goal,sport\n")


def _one_file(directory: Path) -> None:
    directory.mkdir()
    (directory / "news.csv").write_text(TEXT.replace('",', '";').replace("text,", "text;"), encoding="utf-8")
    (directory / "README.md").write_text("# News")


DIRECTORIES: dict[str, tuple[Callable[[Path], object], dict[str, dict[str, int]]]] = {
    "saved": (lambda directory: datasets.Dataset.from_list(JSON).save_to_disk(directory), {"all": EVEN}),
    "dict": (
        lambda directory: datasets.DatasetDict(
            {"train": datasets.Dataset.from_list(JSON), "test": datasets.Dataset.from_list(JSON[:3])}
        ).save_to_disk(directory),
        {"train": EVEN, "test": dict.fromkeys(LABELS, 1)},
    ),
    "folders": (_folders, {"all": EVEN}),
    "split_folders": (_split_folders, {"test": EVEN, "train": EVEN}),
    "competition": (_competition, {"train": EVEN}),
    "imdb": (_imdb, {"test": EVEN, "train": EVEN}),
    "newsgroups": (_newsgroups, {"all": EVEN}),
    "capitals": (_capitals, {"all": EVEN}),
    "cased_splits": (_cased_splits, {"test": {"money": 0, "sport": 1, "tech": 0}, "train": EVEN}),
    "one_file": (_one_file, {"all": EVEN}),
    "wrapped": (_wrapped, {"all": EVEN}),
    "nested": (_nested, {"all": EVEN}),
    "spark": (_spark, {"all": EVEN}),
}


@pytest.mark.parametrize("name", DIRECTORIES)
def test_a_directory_is_read_as_what_it_is(tmp_path: Path, name: str) -> None:
    make, counts = DIRECTORIES[name]
    make(tmp_path / "rows")
    survey = init_config.survey(str(tmp_path / "rows"))
    assert survey.rows == counts
    left_out = [note for note in survey.notes if "left out" in note or "without texts" in note]
    expected = {
        "competition": [f"{tmp_path}/rows/test.csv has no column 'label' and is left out"],
        "imdb": ["1 row without text or label was left out"],
        "newsgroups": [
            f"1 file that is no text file is left out, such as {tmp_path}/rows/sport/notes.pdf",
            f"1 folder without texts: {tmp_path}/rows/later",
        ],
    }
    assert left_out == expected.get(name, [])


def test_a_row_of_several_files_is_named_with_its_own(tmp_path: Path) -> None:
    for part in range(3):
        content = [json.dumps({"text": text, "label": {"a": 1} if part == 1 and number == 4 else label})
                   for number, (text, label) in enumerate(ROWS[10 * part : 10 * part + 10], 1)]  # fmt: skip
        (tmp_path / f"part-{part}.jsonl").write_text("\n".join(content), encoding="utf-8")
    with pytest.raises(DataError, match=r"part-1\.jsonl, row 4, column 'label'"):
        load_dataset(str(tmp_path))


def test_a_folder_per_class_may_have_texts_of_markdown(tmp_path: Path) -> None:
    for number, (text, label) in enumerate(ROWS):
        (tmp_path / label).mkdir(exist_ok=True)
        (tmp_path / label / f"{number}.md").write_text(text, encoding="utf-8")
    assert load_dataset(str(tmp_path)).label_names == LABELS
