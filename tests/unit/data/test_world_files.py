"""Files of rows as the world has them: each is read right, or refused with the way out."""

import csv
import gzip
import io
import json
import re
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from newsbert.api import init_config
from newsbert.data import readers as rows
from newsbert.data.dataset import load_dataset
from newsbert.data.readers import RowFile
from newsbert.errors import DataError
from newsbert.inference.batch.predict_file import predict_file
from tests.support.batch import LengthModel
from tests.support.cli import Cli

CASES = Path(__file__).parents[4] / "shared" / "cases" / "data"

LABELS = ("money", "sport", "tech")
ROWS = [(f"Headline {number}, of a “paper”", LABELS[number % 3]) for number in range(30)]
TEXT = "text,label\n" + "".join(f'"{text}",{label}\n' for text, label in ROWS)
JSON = [{"text": text, "label": label} for text, label in ROWS]
EVEN = dict.fromkeys(LABELS, 10)


def _zip(**members: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_csv", ".csv").replace("_dir", "/._x"), content)
    return stream.getvalue()


def _parquet(**columns: Sequence[object]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


def _tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("rows.csv")
        info.size = len(TEXT.encode())
        archive.addfile(info, io.BytesIO(TEXT.encode()))
    return stream.getvalue()


def _lzma() -> bytes:
    """Return a zip archive whose only file is packed by LZMA, and damaged."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("rows.csv", TEXT)
    content = bytearray(stream.getvalue())
    content[80:120] = bytes(40)
    return bytes(content)


def _class_label() -> bytes:
    stream = io.BytesIO()
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(LABELS))})
    rows = {"text": [text for text, _ in ROWS], "label": [LABELS.index(label) for _, label in ROWS]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(stream)
    return stream.getvalue()


def _numbered(first: int, classes: int, *middle: str) -> str:
    lines = [[str(number % classes + first), *middle, f"Headline {number}"] for number in range(40)]
    return "".join(",".join(f'"{cell}"' for cell in line) + "\n" for line in lines)


def _table(delimiter: str, quoting: Any, text: str = "{}", end: str = "\n") -> str:
    """Return the rows as `csv` writes them, each text set into another."""
    stream = io.StringIO(newline="")
    rows = [("text", "label"), *((text.format(headline), label) for headline, label in ROWS)]
    csv.writer(stream, delimiter=delimiter, quoting=quoting, quotechar='"', lineterminator=end).writerows(rows)
    return stream.getvalue()


def _swapped(header: str, **names: str) -> str:
    """Return the rows below another header, the label first and perhaps by another name."""
    lines = [header] if header else []
    return "".join(f"{line}\n" for line in [*lines, *(f'{names.get(label, label)},"{text}"' for text, label in ROWS)])


def _made(header: str, line: str) -> str:
    """Return a header and a line for each of 30 numbers, with the labels in turns."""
    return "".join([f"{header}\n", *(line.format(n=n, label=LABELS[n % 3]) + "\n" for n in range(30))])


# name, content, rows by label, what is said of it
READ: list[tuple[str, str | bytes, dict[str, int], str]] = [
    ("plain.csv", TEXT, EVEN, ""),
    ("bom.csv", TEXT.encode("utf-8-sig"), EVEN, ""),
    ("semicolons.csv", TEXT.replace('",', '";').replace("text,", "text;"), EVEN, "';' between fields"),
    ("bars.csv", TEXT.replace('",', '"|').replace("text,", "text|"), EVEN, "'|' between fields"),
    ("tabs.csv", TEXT.replace('",', '"\t').replace("text,", "text\t"), EVEN, "tabs between fields"),
    ("sep.csv", "sep=;\r\n" + TEXT.replace('",', '";').replace("text,", "text;"), EVEN, "names the delimiter"),
    ("sep2.csv", "sep=^\n" + TEXT.replace('",', '"^').replace("text,", "text^"), EVEN, "names the delimiter"),
    ("utf16.csv", TEXT.encode("utf-16"), EVEN, "UTF-16 text"),
    ("utf16be.csv", TEXT.encode("utf-16-be"), EVEN, "UTF-16 text"),
    ("russian.csv", TEXT.replace("Headline", "Новости").replace("paper", "газеты").encode("utf-16-le"), EVEN, "UTF-16"),
    ("commas.tsv", TEXT, EVEN, "',' between fields"),
    ("utf16.jsonl", "".join(json.dumps(row) + "\n" for row in JSON).encode("utf-16-le"), EVEN, "UTF-16 text"),
    ("cr.csv", TEXT.replace("\n", "\r"), EVEN, "lines end with CR"),
    ("crlf.csv", TEXT.replace("\n", "\r\n"), EVEN, ""),
    ("packed.csv", gzip.compress(TEXT.encode()), EVEN, "unpacked with gzip"),
    ("packed.csv.gz", gzip.compress(TEXT.encode()), EVEN, ""),
    ("packed.csv.zip", _zip(rows_csv=TEXT, __MACOSX_dir="x"), EVEN, ""),
    ("any.zip", _zip(rows_csv=TEXT), EVEN, ""),
    ("packed.csv", _zip(rows_csv=TEXT), EVEN, "unpacked with zip"),
    ("trailing.csv", re.sub(r"(?<!label)\n", ",,\n", TEXT), EVEN, "30 rows with empty fields beyond the header"),
    ("empty.csv", TEXT.replace("label\n", "label,,\n").replace("sport\n", "sport,,\n"), EVEN | {"money": 0}, "!"),
    ("twice.csv", TEXT + TEXT.replace("Headline", "News"), dict.fromkeys(LABELS, 20), "1 row left out for repeating"),
    ("index.csv", "".join(f"{n - 1 if n else ''},{line}\n" for n, line in enumerate(TEXT.splitlines())), EVEN, ""),
    ("case.csv", TEXT.replace("text,label", "Text, LABEL"), EVEN, ""),
    ("floats.csv", re.sub(r"(money|sport|tech)\n", lambda found: f"{LABELS.index(found[1])}.0\n", TEXT),
     dict.fromkeys(("0", "1", "2"), 10), ""),
    ("booleans.csv", TEXT.replace(",money", ",False").replace(",sport", ",TRUE").replace(",tech", ",true"),
     {"false": 10, "true": 20}, ""),
    ("booleans.jsonl", "".join(f'{{"text": "t {n}", "label": {"true" if n % 2 else "false"}}}\n' for n in range(30)),
     {"false": 15, "true": 15}, ""),
    ("booleans.parquet", _parquet(text=[f"t {n}" for n in range(30)], label=[n % 2 == 1 for n in range(30)]),
     {"false": 15, "true": 15}, ""),
    ("classes.parquet", _class_label(), EVEN, ""),
    ("blanks.csv", TEXT.replace(",sport", ", sport").replace(",tech", ",tech\u200b"), EVEN, ""),
    ("variants.csv", re.sub("(Headline [147],.*),sport", r"\1,Sport", TEXT),
     {"Sport": 3, "money": 10, "sport": 7, "tech": 10}, "'Sport' (3 rows) and 'sport' (7 rows)"),
    ("nan.csv", TEXT + "one,nan\ntwo,\nthree,NaN\n", EVEN, "3 rows without text or label"),
    ("lines.csv", TEXT.replace("Headline 4,", "Headline\n4,"), EVEN, "1 row with a line break in a field"),
    ("quotes.tsv", TEXT.replace('"', "").replace(",money", "\tmoney").replace(",sport", "\tsport")
     .replace(",tech", "\ttech").replace("text,", "text\t").replace("Headline 7", '"Headline 7'), EVEN, ""),
    ("lines.json", "".join(json.dumps(row) + "\n" for row in JSON), EVEN, "JSON lines"),
    ("list.jsonl", json.dumps(JSON, indent=1), EVEN, "a JSON document"),
    ("nested.json", json.dumps({"version": 1, "data": JSON}), EVEN, "the rows are those under 'data'"),
    ("columns.json", json.dumps({name: {str(n): row[name] for n, row in enumerate(JSON)} for name in JSON[0]}), EVEN,
     "its values are columns"),
    ("lists.json", json.dumps({name: [row[name] for row in JSON] for name in JSON[0]}), EVEN, "its values are columns"),
    ("index.json", json.dumps({str(n): row for n, row in enumerate(JSON)}, indent=1), EVEN, "its values are rows"),
    ("split.json", json.dumps({"columns": ["text", "label"], "index": [*range(30)], "data": ROWS}), EVEN,
     "rows and columns are apart"),
    ("numbers.jsonl", "".join(json.dumps(row | {"text": n}) + "\n" for n, row in enumerate(JSON)), EVEN, ""),
    ("nan.jsonl", '{"text": NaN, "label": "tech"}\n' + "".join(json.dumps(row) + "\n" for row in JSON), EVEN,
     "1 row without text or label"),
    ("ag.csv", _numbered(1, 4, "Title"), {"1": 10, "2": 10, "3": 10, "4": 10}, "--labels names the classes 1, 2"),
    ("stars.csv", _numbered(1, 5, "Title"), dict.fromkeys("12345", 8), "--labels names the classes 1, 2"),
    ("two.csv", _numbered(1, 2), {"1": 20, "2": 20}, "no header, so the columns are called class, text"),
    ("ag_faulty.csv", _numbered(1, 4, "T") + _numbered(1, 4, "T").replace("Headline", "News") + '"","T","No class"\n',
     dict.fromkeys("1234", 20), "1 row without text or label"),
    ("pandas.tsv", _table("\t", csv.QUOTE_MINIMAL, 'Of "{}"\nmore'), EVEN, "fields in quotes"),
    ("minimal.tsv", _table("\t", csv.QUOTE_MINIMAL, '"{}", they say'), EVEN, "fields in quotes"),
    ("all.tsv", _table("\t", csv.QUOTE_ALL), EVEN, "fields in quotes"),
    ("r.tsv", "\n".join(line if number == 0 else f'"{number}"\t{line}'
     for number, line in enumerate(_table("\t", csv.QUOTE_ALL).splitlines())), EVEN, "no name for the first column"),
    ("half.tsv", _table("\t", csv.QUOTE_NONE).replace("Headline 4", '"Headline" 4'), EVEN, ""),
    ("whole.tsv", _table("\t", csv.QUOTE_NONE).replace("Headline 4, of a “paper”", '"Headline 4"'), EVEN,
     "1 row with quotes around a field, which in a tsv file are characters"),
    ("space.csv", re.sub("(?m),([a-z]+)$", r', "\1"', TEXT), EVEN, ""),
    ("single.csv", "'text','label'\n" + "".join(f"'{text}','{label}'\n" for text, label in ROWS), EVEN,
     "single quotes"),
    ("spark.csv", TEXT.replace("of a", 'of \\"a\\"'), EVEN, "before quotes in fields"),
    ("upper.csv", "SEP=;\r\n" + TEXT.replace('",', '";').replace("text,", "text;"), EVEN, "names the delimiter"),
    ("title.csv", "News export of 3 May\n\n" + TEXT, EVEN, "2 lines before the header left out"),
    ("excel.csv", "News of May,,\n,,\n" + TEXT.replace("\n", ",\n"), EVEN, "2 lines before the header left out"),
    ("comments.csv", "# from: wire, desk\n# twice\n" + TEXT, EVEN, "2 lines before the header left out"),
    ("blanks_before.csv", "\n \n" + TEXT, EVEN, ""),
    ("two_marks.csv", "\ufeff\ufeff" + TEXT, EVEN, ""),
    ("joined.csv", f"\ufeff{TEXT}\ufeff{TEXT.replace('text,label', 'Text, Label').replace('Headline', 'News')}",
     dict.fromkeys(LABELS, 20), "1 row left out for repeating"),
    ("mac.csv", TEXT.replace("\n", "\r").replace("Headline 4,", "Headline\n4,"), EVEN, "lines end with CR"),
    ("pinyin.csv", TEXT.replace("Headline", "Pānyīn 上").encode("utf-16-le"), EVEN, "UTF-16"),
    ("long.csv", ("text,label\n" + TEXT.partition("\n")[2].replace("Headline", "上海") * 300).encode("utf-16-le"),
     dict.fromkeys(LABELS, 3000), "UTF-16"),
    ("lines_first.csv", _swapped("").replace("Headline", "Headline\n"), EVEN, "guessed: the label is in '1'"),
    ("lines_in_header.csv", _made('id,"Text\n(English)",category', '{n},"Headline {n}",{label}'), EVEN, "guessed"),
    ("decimals.csv", _made("Überschrift;Kategorie;Preis", "Meldung {n};{label};1,{n}"), EVEN, "';' between fields"),
    ("dates.csv", _made("Nr|Artikel|Rubrik|Datum", "{n}|Text {n}|{label}|May {n}, 2020"), EVEN, "'|' between fields"),
    ("sep3.csv", '"sep=;"\n' + TEXT.replace('",', '";').replace("text,", "text;"), EVEN, "names the delimiter"),
    ("id_trailing.csv", _made("id,text,label", '{n},"Headline {n}",{label},'), EVEN,
     "30 rows with empty fields beyond the header"),
    ("null.csv", _made("text,label", r'"He \"{n}\" in C:\new",{label}').replace(",tech", r",\N"),
     {r"\N": 10, "money": 10, "sport": 10}, r"look like empty cells: '\\N' (10 rows)"),
    ("both.tsv", _made("text\tlabel", '"Para one\tx\nPara two {n}"\t{label}'), EVEN, "30 rows with a line break"),
    ("unicode.tsv", _made("text\tlabel", '"Text {n}, of a paper"\t{label}').encode("utf-16"), EVEN, "fields in quotes"),
    ("apostrophe.csv", _made("'text','label'", "'It''s {n}, fine','{label}'"), EVEN, "single quotes"),
    ("commas_above.csv", "Export: news, sport\n" + TEXT, EVEN, "1 line before the header left out"),
    ("pandas_tabs.csv", _made("text\tlabel", '"Para one\nPara two {n}"\t{label}'), EVEN,
     "tabs between fields, fields in quotes"),
    ("large.tsv", "text\tlabel\n" + "".join(f'"{"A long paragraph. " * 40}\nHe said ""x"" {n}"\t{LABELS[n % 3]}\n'
     for n in range(1800)), dict.fromkeys(LABELS, 600), "1800 rows with a line break in a field"),
    ("crcrlf.csv", TEXT.replace("\n", "\r\r\n"), EVEN, "lines end with CR CR LF"),
    ("not_packed.csv.gz", TEXT, EVEN, "not packed"),
    ("readme.zip", _zip(**{"rows_csv": TEXT, "README.md": "# rows"}), EVEN, ""),
    ("direction.csv", TEXT.replace(",tech", ",tech\u200f"), EVEN, ""),
    ("nfd.csv", re.sub("(Headline [147],.*),sport", "\\1,cafe\u0301", TEXT).replace(",sport", ",café"),
     {"café": 10, "money": 10, "tech": 10}, ""),
    ("one_label.jsonl", "".join(json.dumps(row | {"label": [row["label"]]}) + "\n" for row in JSON), EVEN, ""),
    ("named_index.json", json.dumps({name: {f"row {n}": row[name] for n, row in enumerate(JSON)} for name in JSON[0]}),
     EVEN, "its values are columns"),
    ("na.csv", TEXT.replace(",tech", ",NA"), {"NA": 10, "money": 10, "sport": 10}, "'NA' (10 rows)"),
    ("list.csv", json.dumps(JSON), EVEN, "a JSON document"),
    ("tags.json", json.dumps({"text": [row["text"] for row in JSON], "label": [row["label"] for row in JSON],
     "tags": [{"id": 1}] * 30}), EVEN, "its values are columns"),
    ("late.jsonl", "".join(json.dumps(row) + "\n" for row in [{"headline": "x"}] * 1200 + JSON), EVEN,
     "1200 rows without text or label"),
    ("bytes.parquet", _parquet(text=[row["text"].encode() for row in JSON], label=[b"b", b"a", b"c"] * 10),
     dict.fromkeys("abc", 10), ""),
    ("dates.parquet", _parquet(text=[row["text"] for row in JSON], label=list("abc") * 10,
     when=pa.array([2**62] * 30, pa.timestamp("us"))), dict.fromkeys("abc", 10), ""),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "counts", "said"), READ, ids=[name for name, *_ in READ])
def test_a_file_is_read_as_what_it_is(
    tmp_path: Path, name: str, content: str | bytes, counts: dict[str, int], said: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    if said == "!":  # its rows have fewer fields than its header, which is no small thing
        with pytest.raises(DataError, match="line 2: 2 fields, but the header has 4; 19 more rows cannot be read"):
            init_config.survey(str(file))
        return
    found = init_config.survey(str(file))
    assert found.rows == {"all": counts}
    notes = [note for note in found.notes if "hundreds" not in note and "macro F1" not in note]
    notes = [note for note in notes if "text of another row" not in note]
    assert (bool(notes), said in "".join(notes)) == (bool(said), True), notes
    loaded = load_dataset(str(file), text_column=found.text_column, label_column=found.label_column)
    assert len(loaded.label_names) == len(counts)


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
    found = init_config.survey(str(tmp_path / "rows"))
    assert found.rows == counts
    left_out = [note for note in found.notes if "left out" in note or "without texts" in note]
    said = {
        "competition": [f"{tmp_path}/rows/test.csv has no column 'label' and is left out"],
        "imdb": ["1 row without text or label was left out"],
        "newsgroups": [
            f"1 file that is no text file is left out, such as {tmp_path}/rows/sport/notes.pdf",
            f"1 folder without texts: {tmp_path}/rows/later",
        ],
    }
    assert left_out == said.get(name, [])


def test_a_row_of_several_files_is_named_with_its_own(tmp_path: Path) -> None:
    for part in range(3):
        content = [json.dumps({"text": text, "label": {"a": 1} if part == 1 and number == 4 else label})
                   for number, (text, label) in enumerate(ROWS[10 * part : 10 * part + 10], 1)]  # fmt: skip
        (tmp_path / f"part-{part}.jsonl").write_text("\n".join(content), encoding="utf-8")
    with pytest.raises(DataError, match=r"part-1\.jsonl, row 4, column 'label'"):
        load_dataset(str(tmp_path))


def test_columns_of_the_same_name_are_told_apart_where_they_do_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    lines = [f'"{text}",{label},1,2,3' for text, label in ROWS]
    file.write_text("\n".join(["text,label,date,date,date", *lines]), encoding="utf-8")
    found = load_dataset(str(file))
    assert len(found.train) + len(found.validation) + len(found.test) == len(ROWS)
    assert "rows.csv: columns of the same name are read as date.1, date.2" in found.notes
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


def test_a_folder_per_class_may_have_texts_of_markdown(tmp_path: Path) -> None:
    for number, (text, label) in enumerate(ROWS):
        (tmp_path / label).mkdir(exist_ok=True)
        (tmp_path / label / f"{number}.md").write_text(text, encoding="utf-8")
    assert load_dataset(str(tmp_path)).label_names == LABELS


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
        found = init_config.survey(str(tmp_path / name))
        assert found.rows == {"all": {"world": 10, "sport": 10}}
        assert "10 rows without text or label were left out" in found.notes


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
def test_columns_are_guessed_by_their_names_first_and_it_is_said(tmp_path: Path, content: str) -> None:
    (tmp_path / "rows.csv").write_text(content)
    found = init_config.survey(str(tmp_path / "rows.csv"))
    assert (found.text_column, found.label_column) == GUESSED[content]
    assert found.notes[0].startswith("guessed: ")


DOUBTFUL = {
    "pandas' default names": (
        re.sub(",([mst])[a-z]+\n", lambda found: f",{'mst'.index(found[1])}\n", TEXT.replace("text,label", "0,1")),
        ["0", "1"],
    ),
    "a name that is a class": (_swapped("toxic,words", money="toxic", sport="fine", tech="fine"), ["toxic", "words"]),
    "none": (_swapped(""), ["1", "2"]),
    "none, one word a text": (_swapped("sport,Untitled") + "money,Untitled\n", ["1", "2"]),
    "a column for each class": (
        "text,toxic,obscene\n" + "".join(f'"{text}",{n % 2},{n % 3 % 2}\n' for n, (text, _) in enumerate(ROWS)),
        ["text", "toxic", "obscene"],
    ),
    "a class with the name of a column": (_swapped("", money="news"), ["1", "2"]),
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


def test_a_file_without_header_is_guessed_and_train_says_how(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text("".join(f"{label}\t{text}\n" for text, label in ROWS), encoding="utf-8")
    refused = cli("train", "--data", "rows.tsv")
    assert refused.returncode == 1
    assert "no column 'label'; the columns are: 1, 2" in refused.stderr
    assert "newsbert init rows.tsv" in refused.stderr
    done = cli("init", "rows.tsv")
    assert done.returncode == 0, done.stderr
    assert "the label is in '1' and the text is in '2'" in done.stderr
    assert load_dataset(str(tmp_path / "rows.tsv"), text_column="2", label_column="1").label_names == LABELS


# name, content, what the error says, and its hint
REFUSED: list[tuple[str, bytes, str, str]] = [
    ("cp1252.csv", TEXT.encode("cp1252"), "line 2: not valid UTF-8 (byte 0x93", "iconv -f windows-1252 -t utf-8"),
    ("many.csv", "".join(f"Headline {n} of the day,label {n}\n" for n in range(30)).encode(),
     "no column 'label'", "put one above its rows, such as: label,text"),
    ("cells.json", json.dumps({"columns": ["text", "label"], "data": [["a", "b"], ["c", "d", "e"]]}).encode(),
     "item 1: 3 cells, but there are 2 columns", "mend it"),
    ("five.json", b'{"columns": 5, "data": [[1]]}', "got an object with columns, data", "write ["),
    ("by_class.json", b'{"money": ["a", "b"], "sport": ["c"]}', "got an object with money, sport", "write ["),
    ("two_labels.jsonl", b'{"text": "a", "label": ["a", "b"]}\n' * 3, "a row has one label, got 2", "--label-column"),
    ("csv.jsonl", TEXT.encode(), "line 1: not valid JSON", "name the file .csv"),
    ("pretty.jsonl", "".join(json.dumps(row, indent=1) + "\n" for row in JSON).encode(), "line 1: not valid JSON",
     "write an object a line"),
    ("mixed.csv", "text,label\ncafé,sport\n".encode() + b"na\xefve,sport\n", "line 3: not valid UTF-8", "mend this"),
    ("odd.csv", b"text,label\n\x9d\x8f,sport\n", "line 2: not valid UTF-8", "write the file anew, in UTF-8"),
    ("tabs.tsv", b"text\tlabel\n" + b"a\tb\n" * 9 + b"a\tb\tc\n", "line 11: 3 fields, but the header has 2", "csv"),
    ("tar.csv", _tar(), "is a tar archive", "tar -xf "),
    ("twice.csv.gz", gzip.compress(gzip.compress(TEXT.encode())), "is packed twice", "unpack it"),
    ("feather.csv", b"ARROW1" + bytes(50), "a Feather file", "parquet"),
    ("broken.zip", _zip(rows_csv=TEXT).replace(b"Headline 4", b"Headline 5"), "broken zip file", "again"),
    ("lzma.zip", _lzma(), "broken zip file", "again"),
    ("one.csv", b"text\na goal\nstocks\n", "the only column is 'text'", "add a column `label`"),
    ("book.csv", _zip(**{"[Content_Types].xml": "", "xl/workbook.xml": ""}), "an Office document", "CSV UTF-8"),
    ("two.zip", _zip(a_csv=TEXT, b_csv=TEXT), "holds 2 files: a.csv, b.csv", "unzip "),
    ("old.csv", b"\xd0\xcf\x11\xe0" + bytes(600), "an Excel workbook", "CSV UTF-8"),
    ("pointer.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS", "git lfs pull"),
    ("page.csv", b"<!DOCTYPE html>\n<html>", "a web page", "raw"),
    ("packed.csv", b"BZh91AY&SY", "bzip2", "bunzip2 -k "),
    ("several.json", json.dumps({"train": JSON, "test": JSON}).encode(), "several lists: train, test", "of its own"),
    ("objects.json", json.dumps(JSON[0], indent=1).encode() * 2, "not valid JSON: Extra data", "name the file .jsonl"),
    ("fields.csv", b"text,label\na,b,c\nd,e\nf\n", "line 2: 3 fields, but the header has 2; 1 more row", "quote"),
    ("lists.jsonl", b'{"text": ["a"], "label": 1}\n' * 3, "row 1, column 'text': the text is no text but ['a']; 2",
     "--text-column"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "said", "hint"), REFUSED, ids=[name for name, *_ in REFUSED])
def test_what_cannot_be_read_is_refused_with_the_way_out(
    tmp_path: Path, name: str, content: bytes, said: str, hint: str
) -> None:
    (tmp_path / name).write_bytes(content)
    for read in (init_config.survey, load_dataset):
        with pytest.raises(DataError) as caught:
            read(str(tmp_path / name))
        assert name in caught.value.message
        assert said in caught.value.message
        assert hint in str(caught.value.hint)


@pytest.mark.parametrize("name", ["rows.csv", "my rows.csv", "rows.csv.gz", "rows.csv.zip"])
def test_the_command_that_makes_a_file_utf8_does(tmp_path: Path, name: str) -> None:
    content = TEXT.encode("cp1252")
    if name.endswith(".gz"):
        content = gzip.compress(content)
    if name.endswith(".zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("rows.csv", content)
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_dataset(str(tmp_path / name))
    command = str(caught.value.hint).partition("writes it: ")[2]
    subprocess.run(["bash", "-ec", command], cwd=tmp_path, check=True)
    (made,) = tmp_path.glob("utf8-*")
    assert load_dataset(str(made)).label_names == LABELS


# --- no row disappears ------------------------------------------------------------------------------------------------

piece = st.sampled_from(['"', '""', ",", "\t", ";", "'", " ", "a", "goal", "é", "|", "\\", "{", "}"])
line = st.lists(piece, max_size=8).map("".join).filter(str.strip)  # a blank line is no row
relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


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
        said = re.search(r"([0-9]+) rows? with a line break in a field", "".join(notes))
        assert (int(said[1]) if said else 0) == multiline


GOOD = [(label, f"{label} number {number}") for number in range(9) for label in ("money", "sport", "N/A")]


@relaxed
@given(
    st.sampled_from(["rows.csv", "rows.tsv", "rows.jsonl"]),
    st.lists(st.tuples(st.sampled_from(["money", "sport", "", "N/A"]), line), min_size=1, max_size=12),
)
def test_lines_in_are_the_rows_of_train_and_of_init_and_those_said_to_be_left_out(
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
    """Add up what notes say is left out."""
    found = (re.match(r"([0-9]+) .*left out", note) for note in notes)
    return sum(int(match[1]) for match in found if match)


# --- files of others --------------------------------------------------------------------------------------------------

OF_OTHERS: dict[str, tuple[Any, ...]] = {
    "d13_news_aggregator.csv": ("TITLE", "CATEGORY", {"b": 40, "e": 40, "t": 40}),
    "d10_lines.json": ("headline", "category", dict.fromkeys(LABELS, 40)),
    "d23_guess.csv": ("headline", "category", dict.fromkeys(LABELS, 40)),
    "d04_trailing_empty_columns.csv": ("v2", "v1", {"ham": 80, "spam": 40}),
    "d05_headerless_quotes.tsv": ("2", "1", dict.fromkeys(LABELS, 40)),
    "d06b_tsv_quotes.tsv": (None, None, {"money": 38, "sport": 42, "tech": 40}),
    "d07_float_labels.csv": (None, None, dict.fromkeys("012", 40)),
    "d08_one_unlabelled.csv": (None, None, {"money": 40, "sport": 40, "tech": 39}),
    "d08b_nan_string.csv": (None, None, dict.fromkeys(LABELS, 39)),
    "d12_header_blank.csv": (None, None, {"money": 39, "sport": 36, "tech": 37}),
    "d14_headerless.csv": (None, None, {"1": 40, "2": 80}),
    "d14b_amazon.csv": (None, None, {"1": 40, "2": 80}),
    "d14c_amazon_full.csv": (None, None, dict.fromkeys("12345", 24)),
    "d14e_stars.csv": (None, None, dict.fromkeys("1234", 30)),
    "d19_label_variants.csv": (None, None, dict.fromkeys(("Money", "Sport", "Tech"), 9) | dict.fromkeys(LABELS, 31)),
    "d22b_nan_text.jsonl": (None, None, {"money": 39, "sport": 40, "tech": 40}),
    **dict.fromkeys(("d09_bool.csv", "d09_bool.jsonl", "d37_bool.parquet"), (None, None, {"false": 80, "true": 40})),
    "d17_saved": (None, None, None),
    "d18_folders": (None, None, dict.fromkeys(LABELS, 20)),
}
OF_OTHERS_REFUSED = {"d03_cp1252.csv": "iconv -f windows-1252", "only_text.csv": "add a column `label`"}


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the files of others")
def test_files_of_others_are_read_right_or_refused_with_the_way_out() -> None:
    for file in sorted(CASES.iterdir()):
        if file.name in OF_OTHERS_REFUSED:
            with pytest.raises(DataError) as caught:
                init_config.survey(str(file))
            assert OF_OTHERS_REFUSED[file.name] in str(caught.value.hint)
            continue
        text, label, counts = OF_OTHERS.get(file.name, (None, None, dict.fromkeys(LABELS, 40)))
        found = init_config.survey(str(file))
        assert (found.text_column, found.label_column) == (text, label), file.name
        total = {name: sum(split[name] for split in found.rows.values()) for name in next(iter(found.rows.values()))}
        assert total == (counts or dict.fromkeys(LABELS, 40)), file.name
