"""Files that cannot be read: all are refused with the way out."""

import gzip
import io
import json
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from newsbert.api import init_config
from newsbert.data.dataset import load_dataset
from newsbert.errors import DataError
from tests.support.labelled_files import JSON, LABELS, TEXT, zipped


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


# name, content, error message and hint
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
    ("broken.zip", zipped(rows_csv=TEXT).replace(b"Headline 4", b"Headline 5"), "broken zip file", "again"),
    ("lzma.zip", _lzma(), "broken zip file", "again"),
    ("one.csv", b"text\na goal\nstocks\n", "the only column is 'text'", "add a column `label`"),
    ("book.csv", zipped(**{"[Content_Types].xml": "", "xl/workbook.xml": ""}), "an Office document", "CSV UTF-8"),
    ("two.zip", zipped(a_csv=TEXT, b_csv=TEXT), "holds 2 files: a.csv, b.csv", "unzip "),
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


@pytest.mark.parametrize(("name", "content", "message", "hint"), REFUSED, ids=[name for name, *_ in REFUSED])
def test_what_cannot_be_read_is_refused_with_the_way_out(
    tmp_path: Path, name: str, content: bytes, message: str, hint: str
) -> None:
    (tmp_path / name).write_bytes(content)
    for read in (init_config.survey, load_dataset):
        with pytest.raises(DataError) as caught:
            read(str(tmp_path / name))
        assert name in caught.value.message
        assert message in caught.value.message
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
