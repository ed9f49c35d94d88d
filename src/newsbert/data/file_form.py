"""What a file of rows is: found in its first bytes, where its name says less, or something else."""

import codecs
import gzip
import json
import lzma
import re
import shlex
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from newsbert.core.terminal import has_controls
from newsbert.data import dialect, row_columns
from newsbert.data.dialect import Dialect
from newsbert.errors import DataError, UsageError

_MAGIC_BYTES = 512
FORMATS = ("csv", "tsv", "json", "jsonl", "parquet")
_HEAD_BYTES = 1 << 20
CRCRLF = "\r\r\n"
"""What a program for Windows writes where it makes `\r\n` of the `\n` of a `\r\n`."""
_BOMS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_MIN_CONTROLS = 0.2
"""Of the bytes of UTF-16 that are UTF-8, too: half of them are NULs, or 4s in Cyrillic."""
_OTHERS = {
    b"BZh": ("is packed with bzip2", "unpack it: bunzip2 -k {}"),
    b"\xfd7zXZ\x00": ("is packed with xz", "unpack it: unxz -k {}"),
    b"\x28\xb5\x2f\xfd": ("is packed with zstd", "unpack it: unzstd {}"),
    b"7z\xbc\xaf": ("is packed with 7-Zip", "unpack it: 7z x {}"),
    b"\xd0\xcf\x11\xe0": ("is an Excel workbook", "save it as CSV UTF-8 in Excel or LibreOffice"),
    b"SQLite format 3\x00": ("is an SQLite database", "export a table: sqlite3 -header -csv {} 'SELECT * FROM …'"),
    b"ARROW1": ("is a Feather file", "write it as parquet"),
    b"FEA1": ("is a Feather file", "write it as parquet"),
    b"ORC": ("is an ORC file", "write it as parquet"),
    b"Obj\x01": ("is an Avro file", "write it as parquet"),
    b"\x89HDF": ("is an HDF5 file", "write it as parquet"),
    b"%PDF": ("is a PDF document", "write its rows to a csv file"),
    b"{\\rtf": ("is a document of a word processor", "save it as plain text in UTF-8"),
    b"version https://git-lfs": ("is a Git LFS pointer, not the file itself", "git lfs pull"),
}


@dataclass(frozen=True)
class FileForm:
    r"""How a file of rows is read.

    Attributes:
        format: One of `FORMATS`.
        compression: `gzip`, `zip` or nothing.
        member: The file in a zip archive.
        encoding: Python's name of it.
        newline: What ends a line, `\n` (after a `\r`, too), `\r` or `CRCRLF`.
        dialect: Of csv and tsv.
        notes: What of it is not plain.
    """

    format: str
    compression: str = ""
    member: str = ""
    encoding: str = "utf-8-sig"
    newline: str = "\n"
    dialect: Dialect | None = None
    notes: tuple[str, ...] = ()


def format_of(path: Path) -> str:
    """Return the format that the file's name tells, such as `csv` for `rows.csv.gz`.

    Raises:
        UsageError: If the name ends in none of the known formats.
    """
    plain = re.sub(r"\.(gz|zip)$", "", path.name.lower())
    suffix = Path(plain).suffix.lstrip(".")
    suffix = {"ndjson": "jsonl", "pq": "parquet"}.get(suffix, suffix)
    if suffix not in FORMATS:
        if path.name.lower().endswith(".zip") and (member := _member(path)):
            return format_of(Path(member))
        if path.is_file():
            with path.open("rb") as opened_file:
                _refuse_others(path, opened_file.read(_MAGIC_BYTES))
        raise UsageError(
            f"{str(path)!r} is of no known format", f"name it .{', .'.join(FORMATS)}, or one of these with .gz or .zip"
        )
    return suffix


def inspect(path: Path) -> FileForm:
    """Find out how to read a file of rows.

    Raises:
        UsageError: If its name tells no known format.
        DataError: If it is something else; the hint says what to do.
        OSError: If it cannot be read.
    """
    named = format_of(path)
    compression, member = _compression(path)
    with opened(path, compression, member) as stream:
        content = stream.read(_HEAD_BYTES)
        complete = len(content) < _HEAD_BYTES
    _refuse_others(path, content)
    notes = []
    if not compression and path.name.lower().endswith((".gz", ".zip")):
        notes.append("not packed")
    if compression and not path.name.lower().endswith({"gzip": ".gz", "zip": ".zip"}[compression]):
        notes.append(f"unpacked with {compression}")
    if content.startswith(b"PAR1") or named == "parquet":
        notes += [] if named == "parquet" else ["a parquet file"]
        return FileForm("parquet", compression, member, notes=tuple(notes))
    encoding = _encoding(content, complete)
    if not encoding.startswith("utf-8"):
        notes.append(f"{encoding.upper()[:6]} text")
    text = content.decode(encoding, "replace")
    newline = _newline(text)
    if newline != "\n":
        notes.append("lines end with " + newline.replace("\r", "CR ").replace("\n", "LF").strip())
    if newline == CRCRLF:
        text = text.replace(CRCRLF, "\n")
    if not complete:
        text = text[: text.rfind(newline[-1]) + 1] or text
    text = re.sub("(?m)^\ufeff+", "", text)  # of files that were joined
    format_ = _content_format(named, text, complete)
    if format_ != named:
        notes.append({"json": "a JSON document", "jsonl": "JSON lines"}[format_])
    found = None if format_ in {"json", "jsonl"} else dialect.find(named, text, newline[-1], complete)
    return FileForm(
        format_ if found is None else "csv",
        compression,
        member,
        encoding,
        newline,
        found,
        (*notes, *(found.notes if found else ())),
    )


@contextmanager
def opened(path: Path, compression: str, member: str = "") -> Iterator[BinaryIO]:
    """Open a file for bytes, unpacked."""
    if compression == "gzip":
        with gzip.open(path, "rb") as stream:
            yield stream  # type: ignore[misc]
    elif compression == "zip":
        with _zip_errors(path), zipfile.ZipFile(path) as archive, archive.open(member) as packed:
            yield packed  # type: ignore[misc]
    else:
        with path.open("rb") as plain:
            yield plain


@contextmanager
def _zip_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        encrypted = isinstance(error, RuntimeError) and not isinstance(error, NotImplementedError)
        what = "not a readable" if encrypted else "broken"  # it has a password
        hint = "unpack it, and name the file in it" if encrypted else "fetch or write the file again"
        raise DataError(f"{path}: {what} zip file: {error or 'it ends too early'}", hint) from error


def _compression(path: Path) -> tuple[str, str]:
    """Return what a file is packed with, and which file of an archive it is."""
    with path.open("rb") as plain:
        magic = plain.read(4)
    if magic.startswith(b"\x1f\x8b"):
        return "gzip", ""
    if magic == b"PK\x03\x04":
        return "zip", _member(path)
    return "", ""


def _member(path: Path) -> str:
    """Return the only file of rows in a zip archive, or nothing if there is no archive.

    Raises:
        DataError: If it holds something else.
    """
    if not path.is_file():
        return ""
    with _zip_errors(path), zipfile.ZipFile(path) as archive:
        names = [info.filename for info in archive.infolist() if not info.is_dir()]
    if "[Content_Types].xml" in names:
        raise DataError(f"{path} is an Office document", "save it as CSV UTF-8 in Excel or LibreOffice")
    names = [name for name in names if not re.search(r"^__MACOSX/|(^|/)\.[^/]*$", name)]
    of_rows = [name for name in names if Path(name).suffix.lower().lstrip(".") in FORMATS]
    names = of_rows if len(of_rows) == 1 else names
    if len(names) != 1:
        held = row_columns.show_names(names) or "nothing"
        raise DataError(
            f"{path} holds {len(names)} files: {held}", f"unpack it and name one: unzip {shlex.quote(str(path))}"
        )
    return names[0]


def _refuse_others(path: Path, content: bytes) -> None:
    name = shlex.quote(str(path))
    for magic, (what, hint) in _OTHERS.items():
        if content.startswith(magic):
            raise DataError(f"{path} {what}", hint.format(name))
    if content[257:262] == b"ustar":
        raise DataError(f"{path} is a tar archive", f"unpack it, and name the file in it: tar -xf {name}")
    if content.startswith((b"\x1f\x8b", b"PK\x03\x04")):
        raise DataError(f"{path} is packed twice", "unpack it, and name the file in it")
    if re.match(rb"\s*<(!doctype html|html)\b", content[:200], re.IGNORECASE):
        raise DataError(f"{path} is a web page, not the file itself", "fetch the file by its own (raw) address")


def _encoding(content: bytes, complete: bool) -> str:
    """Return the encoding that the byte order mark tells, or the NUL bytes of UTF-16; else UTF-8."""
    for mark, name in _BOMS.items():
        if content.startswith(mark):
            return name
    if b"\0" not in content:
        return "utf-8-sig"
    # UTF-16 has a NUL on one side of each pair that is a blank, a delimiter or the end of a line.
    is_plain = _is_utf8(content)
    if is_plain and sum(map(content.count, range(9))) < len(content) * _MIN_CONTROLS:
        return "utf-8-sig"
    counts = {}
    for name in ("utf-16-le", "utf-16-be"):
        with suppress(UnicodeDecodeError):
            text = codecs.getincrementaldecoder(name)().decode(content, final=complete)
            if not is_plain or (re.search("[\r\n]", text) and not has_controls("".join(text.split()))):
                counts[name] = sum(map(text.count, ' ,;\t|"\r\n{}'))
    most = max(counts, key=lambda name: counts[name], default="")
    return most if most and counts[most] else "utf-8-sig"


def _is_utf8(content: bytes) -> bool:
    """Return whether the beginning of a file is UTF-8, a character at its end perhaps cut."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(content)
    except UnicodeDecodeError:
        return False
    return True


def _newline(text: str) -> str:
    r"""Return what ends the first line that is not in quotes: `\r` as on an old Mac, `\r\r\n`, or else `\n`."""
    for part in re.finditer(r'"[^"]*"|\r\r\n|\r\n|\r|\n', text):
        if not part[0].startswith('"'):
            return part[0] if part[0] in {"\r", CRCRLF} else "\n"
    return "\r" if "\r" in text and "\n" not in text else "\n"


def _content_format(named: str, text: str, complete: bool) -> str:
    """Return whether a text is JSON lines, a JSON document, or what its name says."""
    lines = text.lstrip().split("\n", 1)
    first, rest = lines[0].strip(), lines[1].strip() if len(lines) > 1 else ""
    try:
        value = json.loads(first) if first[:1] in {"{", "["} else None
    except (ValueError, RecursionError):
        value = None
    if named in {"csv", "tsv"}:
        if isinstance(value, dict):
            return "jsonl"
        return "json" if re.match(r'\s*\[\s*\{\s*"', text) else named
    if isinstance(value, dict):
        nested = any(isinstance(item, dict | list) for item in value.values())
        return "json" if named == "json" and nested and not rest and complete else "jsonl"
    if named == "jsonl" and first.startswith("["):
        return "json" if value is None or (value and isinstance(value[0], dict)) else "jsonl"
    return named
