"""Files of rows as the world has them: every file is read as what it is."""

import csv
import gzip
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from newsbert.api import init_config
from newsbert.data.dataset import load_dataset
from newsbert.errors import DataError
from tests.support.labelled_files import EVEN, JSON, LABELS, ROWS, TEXT, swapped, zipped

CASES = Path(__file__).parents[4] / "shared" / "cases" / "data"


def _parquet(**columns: Sequence[object]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


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
    """Return the rows as `csv` writes them, every text set into another."""
    stream = io.StringIO(newline="")
    rows = [("text", "label"), *((text.format(headline), label) for headline, label in ROWS)]
    csv.writer(stream, delimiter=delimiter, quoting=quoting, quotechar='"', lineterminator=end).writerows(rows)
    return stream.getvalue()


def _made(header: str, line: str) -> str:
    """Return a header and 30 numbered lines, with the labels in turns."""
    return "".join([f"{header}\n", *(line.format(n=n, label=LABELS[n % 3]) + "\n" for n in range(30))])


# name, content, rows by label, part of a note
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
    ("packed.csv.zip", zipped(rows_csv=TEXT, __MACOSX_dir="x"), EVEN, ""),
    ("any.zip", zipped(rows_csv=TEXT), EVEN, ""),
    ("packed.csv", zipped(rows_csv=TEXT), EVEN, "unpacked with zip"),
    ("trailing.csv", re.sub(r"(?<!label)\n", ",,\n", TEXT), EVEN, "30 rows with empty fields beyond the header"),
    ("empty.csv", TEXT.replace("label\n", "label,,\n").replace("sport\n", "sport,,\n"), EVEN | {"money": 0}, "!"),
    ("twice.csv", TEXT + TEXT.replace("Headline", "News"), dict.fromkeys(LABELS, 20), "1 row left out for repeating"),
    ("index.csv", "".join(f"{n - 1 if n else ''},{line}\n" for n, line in enumerate(TEXT.splitlines())), EVEN, ""),
    ("case.csv", TEXT.replace("text,label", "Text, LABEL"), EVEN, ""),
    ("floats.csv", re.sub(r"(money|sport|tech)\n", lambda match: f"{LABELS.index(match[1])}.0\n", TEXT),
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
    ("lines_first.csv", swapped("").replace("Headline", "Headline\n"), EVEN, "guessed: the label is in '1'"),
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
    ("readme.zip", zipped(**{"rows_csv": TEXT, "README.md": "# rows"}), EVEN, ""),
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


@pytest.mark.parametrize(("name", "content", "counts", "message"), READ, ids=[name for name, *_ in READ])
def test_a_file_is_read_as_what_it_is(
    tmp_path: Path, name: str, content: str | bytes, counts: dict[str, int], message: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    if message == "!":  # its rows have fewer fields than its header, which is no small thing
        with pytest.raises(DataError, match="line 2: 2 fields, but the header has 4; 19 more rows cannot be read"):
            init_config.survey(str(file))
        return
    survey = init_config.survey(str(file))
    assert survey.rows == {"all": counts}
    notes = [note for note in survey.notes if "hundreds" not in note and "macro F1" not in note]
    notes = [note for note in notes if "text of another row" not in note]
    assert (bool(notes), message in "".join(notes)) == (bool(message), True), notes
    loaded = load_dataset(str(file), text_column=survey.text_column, label_column=survey.label_column)
    assert len(loaded.label_names) == len(counts)


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
        survey = init_config.survey(str(file))
        assert (survey.text_column, survey.label_column) == (text, label), file.name
        total = {name: sum(split[name] for split in survey.rows.values()) for name in next(iter(survey.rows.values()))}
        assert total == (counts or dict.fromkeys(LABELS, 40)), file.name
