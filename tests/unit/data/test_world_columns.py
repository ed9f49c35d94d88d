"""Columns of files of the world: their names, and whether the first line has them."""

import re
from pathlib import Path

import datasets
import pytest

from newsbert.api import init_config
from newsbert.data import readers as rows
from newsbert.data.dataset import load_dataset
from newsbert.data.readers import RowFile
from newsbert.errors import DataError
from tests.support.cli import Cli
from tests.support.labelled_files import LABELS, ROWS, TEXT, swapped


def test_columns_of_the_same_name_are_distinguished_where_they_do_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    lines = [f'"{text}",{label},1,2,3' for text, label in ROWS]
    file.write_text("\n".join(["text,label,date,date,date", *lines]), encoding="utf-8")
    dataset = load_dataset(str(file))
    assert len(dataset.train) + len(dataset.validation) + len(dataset.test) == len(ROWS)
    assert "rows.csv: columns of the same name are read as date.1, date.2" in dataset.notes
    assert rows.columns(rows.read(file)) == ["text", "label", "date", "date.1", "date.2"]


@pytest.mark.parametrize(
    ("header", "read"),
    [
        ("text,label,,,Unnamed: 2", ["text", "label", "Unnamed: 2", "Unnamed: 3", "Unnamed: 2.1"]),
        ("text,label,x,x.1,x", ["text", "label", "x", "x.1", "x.2"]),
        ("text,label,x,x,x.1", ["text", "label", "x", "x.1", "x.1.1"]),
    ],
)
def test_names_of_columns_are_those_of_no_other(tmp_path: Path, header: str, read: list[str]) -> None:
    (tmp_path / "rows.csv").write_text(f"{header}\ngoal,sport,1,2,3\nbank,money,1,2,3\n", encoding="utf-8")
    assert rows.columns(rows.read(tmp_path / "rows.csv")) == read


def test_attack_a_header_of_many_equal_names_costs_no_more_than_others(tmp_path: Path) -> None:
    names = [f"x{number % 2}" for number in range(40_000)]
    (tmp_path / "rows.csv").write_text(f"text,label,{','.join(names)}\n", encoding="utf-8")
    with pytest.raises(DataError, match="has no rows"):
        rows.read(tmp_path / "rows.csv")


def test_splits_in_a_column_of_any_case_are_splits(tmp_path: Path) -> None:
    lines = [f'"{text}",{label},{"Train" if n % 3 else "TEST"}' for n, (text, label) in enumerate(ROWS)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label,Split", *lines]), encoding="utf-8")
    assert {
        name: sum(counts.values()) for name, counts in init_config.survey(str(tmp_path / "rows.csv")).rows.items()
    } == {
        "train": 20,
        "test": 10,
    }


@pytest.mark.parametrize("column", ["Label", "category"])
def test_classes_of_the_hub_keep_their_names_whatever_their_column_is_called(tmp_path: Path, column: str) -> None:
    names = ["world", "sport"]
    features = datasets.Features({"text": datasets.Value("string"), column: datasets.ClassLabel(names=names)})
    rows = {"text": [f"text {n}" for n in range(30)], column: [n % 3 - 1 for n in range(30)]}  # -1: no label
    made = datasets.Dataset.from_dict(rows, features=features)
    made.to_parquet(tmp_path / "rows.parquet")
    made.save_to_disk(tmp_path / "saved")
    for name in ("rows.parquet", "saved"):
        survey = init_config.survey(str(tmp_path / name))
        assert survey.rows == {"all": {"world": 10, "sport": 10}}
        assert "10 rows without text or label were left out" in survey.notes


GUESSED = {
    "v1,v2,,,\nham,One text,,,\nspam,Two texts,,,\nham,Three texts,,,\n": ("v2", "v1"),
    "ID,TITLE,URL,CATEGORY\n0,A goal,http://a.example/a-goal-and-more,e\n1,Stocks,http://a.example/stocks-and-more,b\n":
        ("TITLE", "CATEGORY"),
    "date,lang,premium,headline,category\n1,en,True,A goal,sport\n2,de,False,Stocks,money\n3,en,True,A cup,sport\n":
        ("headline", "category"),
    "Headline ,Topic,url\nA goal,sport,www.a.example/one\nStocks,money,www.a.example/two\n": ("Headline ", "Topic"),
    "sentiment,content,author\npos,Well done,ann\nneg,Not at all,bob\n": ("content", "sentiment"),
}  # fmt: skip


@pytest.mark.parametrize("content", GUESSED)
def test_columns_are_guessed_by_their_names_first_with_a_note(tmp_path: Path, content: str) -> None:
    (tmp_path / "rows.csv").write_text(content)
    survey = init_config.survey(str(tmp_path / "rows.csv"))
    assert (survey.text_column, survey.label_column) == GUESSED[content]
    assert survey.notes[0].startswith("guessed: ")


DOUBTFUL = {
    "pandas' default names": (
        re.sub(",([mst])[a-z]+\n", lambda match: f",{'mst'.index(match[1])}\n", TEXT.replace("text,label", "0,1")),
        ["0", "1"],
    ),
    "a name that is a class": (swapped("toxic,words", money="toxic", sport="fine", tech="fine"), ["toxic", "words"]),
    "none": (swapped(""), ["1", "2"]),
    "none, one word a text": (swapped("sport,Untitled") + "money,Untitled\n", ["1", "2"]),
    "a column for each class": (
        "text,toxic,obscene\n" + "".join(f'"{text}",{n % 2},{n % 3 % 2}\n' for n, (text, _) in enumerate(ROWS)),
        ["text", "toxic", "obscene"],
    ),
    "a class with the name of a column": (swapped("", money="news"), ["1", "2"]),
    "row numbers": ("".join(f"{n},Some text {n} here\n" for n in range(1, 6)), ["1", "Some text 1 here"]),
    "a title of one word in a file of one column": ("tweet_text\nHello\nNews\nBaz\n", ["tweet_text"]),
    "stars and numbers": (
        "stars,text\n" + "".join(f'{n % 4 + 1},"{text}"\n' for n, (text, _) in enumerate(ROWS)),
        ["stars", "text"],
    ),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_a_first_line_is_a_header_or_a_row(tmp_path: Path, name: str) -> None:
    content, columns = DOUBTFUL[name]
    (tmp_path / "rows.csv").write_text(content, encoding="utf-8")
    file = RowFile(tmp_path / "rows.csv")
    assert file.columns() == columns
    num_lines = content.count("\n")
    assert len(list(file.rows())) == (num_lines if columns == ["1", "2"] else num_lines - 1)


def test_a_file_without_header_is_guessed_and_train_has_a_hint(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text("".join(f"{label}\t{text}\n" for text, label in ROWS), encoding="utf-8")
    refused = cli("train", "--data", "rows.tsv")
    assert refused.returncode == 1
    assert "no column 'label'; the columns are: 1, 2" in refused.stderr
    assert "newsbert init rows.tsv" in refused.stderr
    done = cli("init", "rows.tsv")
    assert done.returncode == 0, done.stderr
    assert "the label is in '1' and the text is in '2'" in done.stderr
    assert load_dataset(str(tmp_path / "rows.tsv"), text_column="2", label_column="1").label_names == LABELS
