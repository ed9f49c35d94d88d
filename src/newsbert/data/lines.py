"""The lines of a text file of rows, and what is wrong with those that hold none."""

import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from newsbert.data.file_form import CRCRLF, FileForm
from newsbert.data.row_columns import show_names
from newsbert.errors import DataError

Row = dict[str, Any]
_UNDECODED = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True)
class RowError:
    r"""A row that is none, in a file whose other rows can be read.

    Attributes:
        where: Its place, such as `line 7`.
        reason: What is wrong with it.
        hint: What to do about it.
        content: The row as it stands in the file; bytes that are no UTF-8 as `\xe9`.
        repeats_header: Whether it is the header again, which no row is lost with.
    """

    where: str
    reason: str
    hint: str
    content: str
    repeats_header: bool = False

    def error(self, path: Path, alike: int = 0) -> DataError:
        """Return the error for whom a file with such a row, and so many more, is of no use."""
        more = f"; {alike} more {'row' if alike == 1 else 'rows'} cannot be read" if alike else ""
        return DataError(f"{path}, {self.where}: {self.reason}{more}", self.hint)


Sized = tuple[Row | RowError, int]
"""A row and how many characters it has in its file."""


@dataclass
class Tally:
    """Rows of a file that are read, and of which its user should know.

    Attributes:
        multiline: With a line break in a field.
        trailing: With empty fields beyond the header's.
        quoted: With a field in quotes, where a quote is a character.
        headers: Which repeat the header.
        renamed: Columns that are called otherwise than in the file, where another has that name.
    """

    multiline: int = 0
    trailing: int = 0
    quoted: int = 0
    headers: int = 0
    renamed: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """Return a phrase for each kind of which there are rows."""
        phrases = (
            (self.multiline, "with a line break in a field"),
            (self.trailing, "with empty fields beyond the header"),
            (self.quoted, "with quotes around a field, which in a tsv file are characters"),
            (self.headers, "left out for repeating the header"),
        )
        notes = [f"{count} {'row' if count == 1 else 'rows'} {phrase}" for count, phrase in phrases if count]
        return notes + ([f"columns of the same name are read as {show_names(self.renamed)}"] if self.renamed else [])


class Lines:
    """The decoded lines of a file, ends kept.

    A line that is no UTF-8 does not end the reading: it comes with its bytes escaped, and `fault` says so.

    Attributes:
        number: Of the line that was read last.
        size: Of the lines in `taken`, in characters.
        taken: The lines since `forget` was called: those of one row.
    """

    def __init__(self, path: Path, opened: BinaryIO, form: FileForm) -> None:
        self._path, self._form = path, form
        errors = "surrogateescape" if form.encoding.startswith("utf-8") else "strict"
        self._stream = io.TextIOWrapper(opened, form.encoding, errors, form.newline.removeprefix("\r\r"))
        self._undecodable: tuple[str, str, str] | None = None
        self._has_utf8 = False
        self.number = 0
        self.size = 0
        self.taken: list[str] = []
        for _ in range(form.dialect.skipped_lines if form.dialect else 0):
            next(self, "")
        self.forget()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            line = next(self._stream)
        except UnicodeDecodeError as error:
            encoding = self._form.encoding.upper()[:6]
            raise DataError(
                f"{self._path}, behind line {self.number}: not valid {encoding}: {error.reason}", "write the file again"
            ) from error
        self.number += 1
        if self._form.newline == CRCRLF:
            line = line.removesuffix(CRCRLF).removesuffix("\n") + "\n"
        if not self.taken:
            line = line.lstrip("\ufeff")  # of files that were joined
        undecoded = None if line.isascii() else _UNDECODED.search(line)
        if undecoded is not None:
            position = len(line[: undecoded.start()].encode("utf-8", "surrogateescape")) + 1
            byte = ord(undecoded[0]) - 0xDC00
            reason = f"not valid UTF-8 (byte 0x{byte:02x}, position {position})"
            self._undecodable = f"line {self.number}", reason, self._conversion(line)
            line = line.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        elif not line.isascii():
            self._has_utf8 = True
        self.taken.append(line)
        self.size += len(line)
        return line

    @property
    def first(self) -> int:
        """The number of the row's first line."""
        return self.number - len(self.taken) + 1

    def forget(self) -> None:
        """Begin another row."""
        self.taken.clear()
        self.size, self._undecodable = 0, None

    def undecodable(self) -> RowError | None:
        """Return what is wrong with the row if it is no UTF-8."""
        if self._undecodable is None:
            return None
        return RowError(*self._undecodable, "".join(self.taken))

    def fault(self, reason: str, hint: str, line: int | None = None) -> RowError:
        """Return what is wrong with the row, if not that it is no UTF-8."""
        return self.undecodable() or RowError(f"line {line or self.number}", reason, hint, "".join(self.taken))

    def _conversion(self, line: str) -> str:
        """Return how to make the file UTF-8: by a command, where it may be Windows-1252, as Excel writes it."""
        if self._has_utf8:
            return "the lines before it are UTF-8, so mend this one"
        try:
            line.encode("utf-8", "surrogateescape").decode("windows-1252")
        except UnicodeDecodeError:
            return "write the file anew, in UTF-8"
        source, plain = shlex.quote(str(self._path)), self._path.name
        command = f"iconv -f windows-1252 -t utf-8 {source}"
        if self._form.compression:
            plain = Path(self._form.member).name or re.sub(r"\.gz$", "", plain, flags=re.IGNORECASE)
            unpack = "gzip -dc" if self._form.compression == "gzip" else "unzip -p"
            command = f"{unpack} {source} | iconv -f windows-1252 -t utf-8"
        return f"if it is Windows-1252, as Excel writes it: {command} > {shlex.quote(f'utf8-{plain}')}"
