"""Form of a file of rows, detected from its first bytes, as its name may be incomplete or wrong."""

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
r"""Line end of a Windows program that replaces the `\n` in `\r\n` by `\r\n`."""
_BOMS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_MIN_CONTROL_FRACTION = 0.2
"""Minimum fraction of control bytes in UTF-16 that is valid UTF-8, too: half are NULs, or 4s in Cyrillic."""
_REFUSED_FORMATS = {
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
    r"""The form of a file of rows.

    Attributes:
        format: One of `FORMATS`.
        compression: `gzip`, `zip` or empty.
        member: Name of the file in a zip archive.
        encoding: Python's name of the encoding.
        newline: Line end: `\n` (for `\r\n`, too), `\r` or `CRCRLF`.
        dialect: Dialect of csv and tsv files.
        notes: Notes on unusual properties.
    """

    format: str
    compression: str = ""
    member: str = ""
    encoding: str = "utf-8-sig"
    newline: str = "\n"
    dialect: Dialect | None = None
    notes: tuple[str, ...] = ()


def format_of(path: Path) -> str:
    """Return the format by the name of a file, such as `csv` for `rows.csv.gz`.

    Raises:
        UsageError: If the suffix is of no known format.
    """
    plain = re.sub(r"\.(gz|zip)$", "", path.name.lower())
    suffix = Path(plain).suffix.lstrip(".")
    suffix = {"ndjson": "jsonl", "pq": "parquet"}.get(suffix, suffix)
    if suffix not in FORMATS:
        if path.name.lower().endswith(".zip") and (member := _find_member(path)):
            return format_of(Path(member))
        if path.is_file():
            with path.open("rb") as opened_file:
                _refuse_other_formats(path, opened_file.read(_MAGIC_BYTES))
        raise UsageError(
            f"{str(path)!r} is of no known format", f"name it .{', .'.join(FORMATS)}, or one of these with .gz or .zip"
        )
    return suffix


def inspect(path: Path) -> FileForm:
    """Detect the form of a file of rows.

    Raises:
        UsageError: If the suffix is of no known format.
        DataError: If the content has another format; the hint has the remedy.
        OSError: If the file cannot be read.
    """
    named = format_of(path)
    compression, member = _detect_compression(path)
    with opened(path, compression, member) as stream:
        content = stream.read(_HEAD_BYTES)
        complete = len(content) < _HEAD_BYTES
    _refuse_other_formats(path, content)
    notes = []
    if not compression and path.name.lower().endswith((".gz", ".zip")):
        notes.append("not packed")
    if compression and not path.name.lower().endswith({"gzip": ".gz", "zip": ".zip"}[compression]):
        notes.append(f"unpacked with {compression}")
    if content.startswith(b"PAR1") or named == "parquet":
        notes += [] if named == "parquet" else ["a parquet file"]
        return FileForm("parquet", compression, member, notes=tuple(notes))
    encoding = _detect_encoding(content, complete)
    if not encoding.startswith("utf-8"):
        notes.append(f"{encoding.upper()[:6]} text")
    text = content.decode(encoding, "replace")
    newline = _detect_newline(text)
    if newline != "\n":
        notes.append("lines end with " + newline.replace("\r", "CR ").replace("\n", "LF").strip())
    if newline == CRCRLF:
        text = text.replace(CRCRLF, "\n")
    if not complete:
        text = text[: text.rfind(newline[-1]) + 1] or text
    text = re.sub("(?m)^\ufeff+", "", text)  # byte order marks of concatenated files
    format_ = _detect_format(named, text, complete)
    if format_ != named:
        notes.append({"json": "a JSON document", "jsonl": "JSON lines"}[format_])
    file_dialect = None if format_ in {"json", "jsonl"} else dialect.find(named, text, newline[-1], complete)
    return FileForm(
        format_ if file_dialect is None else "csv",
        compression,
        member,
        encoding,
        newline,
        file_dialect,
        (*notes, *(file_dialect.notes if file_dialect else ())),
    )


@contextmanager
def opened(path: Path, compression: str, member: str = "") -> Iterator[BinaryIO]:
    """Open a file for reading bytes, decompressed."""
    if compression == "gzip":
        with gzip.open(path, "rb") as stream:
            yield stream  # type: ignore[misc]
    elif compression == "zip":
        with _translate_zip_errors(path), zipfile.ZipFile(path) as archive, archive.open(member) as packed:
            yield packed  # type: ignore[misc]
    else:
        with path.open("rb") as plain:
            yield plain


@contextmanager
def _translate_zip_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        encrypted = isinstance(error, RuntimeError) and not isinstance(error, NotImplementedError)
        problem = "not a readable" if encrypted else "broken"  # it has a password
        hint = "unpack it, and name the file in it" if encrypted else "fetch or write the file again"
        raise DataError(f"{path}: {problem} zip file: {error or 'it ends too early'}", hint) from error


def _detect_compression(path: Path) -> tuple[str, str]:
    """Return the compression of a file, and the name of its member if it is an archive."""
    with path.open("rb") as plain:
        magic = plain.read(4)
    if magic.startswith(b"\x1f\x8b"):
        return "gzip", ""
    if magic == b"PK\x03\x04":
        return "zip", _find_member(path)
    return "", ""


def _find_member(path: Path) -> str:
    """Return the name of the only file of rows in a zip archive; empty if the archive does not exist.

    Raises:
        DataError: If the archive has other content.
    """
    if not path.is_file():
        return ""
    with _translate_zip_errors(path), zipfile.ZipFile(path) as archive:
        names = [info.filename for info in archive.infolist() if not info.is_dir()]
    if "[Content_Types].xml" in names:
        raise DataError(f"{path} is an Office document", "save it as CSV UTF-8 in Excel or LibreOffice")
    names = [name for name in names if not re.search(r"^__MACOSX/|(^|/)\.[^/]*$", name)]
    row_files = [name for name in names if Path(name).suffix.lower().lstrip(".") in FORMATS]
    names = row_files if len(row_files) == 1 else names
    if len(names) != 1:
        listing = row_columns.show_names(names) or "nothing"
        raise DataError(
            f"{path} holds {len(names)} files: {listing}", f"unpack it and name one: unzip {shlex.quote(str(path))}"
        )
    return names[0]


def _refuse_other_formats(path: Path, content: bytes) -> None:
    name = shlex.quote(str(path))
    for magic, (problem, hint) in _REFUSED_FORMATS.items():
        if content.startswith(magic):
            raise DataError(f"{path} {problem}", hint.format(name))
    if content[257:262] == b"ustar":
        raise DataError(f"{path} is a tar archive", f"unpack it, and name the file in it: tar -xf {name}")
    if content.startswith((b"\x1f\x8b", b"PK\x03\x04")):
        raise DataError(f"{path} is packed twice", "unpack it, and name the file in it")
    if re.match(rb"\s*<(!doctype html|html)\b", content[:200], re.IGNORECASE):
        raise DataError(f"{path} is a web page, not the file itself", "fetch the file by its own (raw) address")


def _detect_encoding(content: bytes, complete: bool) -> str:
    """Return the encoding by the byte order mark or by the NUL bytes of UTF-16, otherwise UTF-8."""
    for mark, name in _BOMS.items():
        if content.startswith(mark):
            return name
    if b"\0" not in content:
        return "utf-8-sig"
    # In UTF-16, one of the two bytes of a blank, a delimiter or a line end is a NUL.
    is_plain = _is_utf8(content)
    if is_plain and sum(map(content.count, range(9))) < len(content) * _MIN_CONTROL_FRACTION:
        return "utf-8-sig"
    counts = {}
    for name in ("utf-16-le", "utf-16-be"):
        with suppress(UnicodeDecodeError):
            text = codecs.getincrementaldecoder(name)().decode(content, final=complete)
            if not is_plain or (re.search("[\r\n]", text) and not has_controls("".join(text.split()))):
                counts[name] = sum(map(text.count, ' ,;\t|"\r\n{}'))
    best = max(counts, key=lambda name: counts[name], default="")
    return best if best and counts[best] else "utf-8-sig"


def _is_utf8(content: bytes) -> bool:
    """Return whether the beginning of a file is UTF-8; its last character may be incomplete."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(content)
    except UnicodeDecodeError:
        return False
    return True


def _detect_newline(text: str) -> str:
    r"""Return the first line end that is not in quotes: `\r` as on an old Mac, `\r\r\n`, otherwise `\n`."""
    for part in re.finditer(r'"[^"]*"|\r\r\n|\r\n|\r|\n', text):
        if not part[0].startswith('"'):
            return part[0] if part[0] in {"\r", CRCRLF} else "\n"
    return "\r" if "\r" in text and "\n" not in text else "\n"


def _detect_format(named: str, text: str, complete: bool) -> str:
    """Return the format of a text: JSON lines, a JSON document, or the format by its name."""
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
