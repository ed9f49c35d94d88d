"""Lines of a text file of rows, and errors for lines that are no rows."""

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
    r"""A row that cannot be read, in a file whose other rows can.

    Attributes:
        where: Position, such as `line 7`.
        reason: Description of the problem.
        hint: Remedy.
        content: Text of the row in the file, with bytes that are not UTF-8 as `\xe9`.
        repeats_header: Whether the row repeats the header, so that no data is lost.
    """

    where: str
    reason: str
    hint: str
    content: str
    repeats_header: bool = False

    def error(self, path: Path, alike: int = 0) -> DataError:
        """Return the error for a file with this row and `alike` more unreadable rows."""
        more = f"; {alike} more {'row' if alike == 1 else 'rows'} cannot be read" if alike else ""
        return DataError(f"{path}, {self.where}: {self.reason}{more}", self.hint)


Sized = tuple[Row | RowError, int]
"""A row and its number of characters in the file."""


@dataclass
class Tally:
    """Counts of unusual rows of a file, for notes to the user.

    Attributes:
        multiline: Rows with a line break in a field.
        trailing: Rows with empty fields beyond the header.
        quoted: Rows with a field in quotes, in a file where quotes are ordinary characters.
        headers: Rows that repeat the header.
        renamed: New names of columns whose name in the file is not unique.
    """

    multiline: int = 0
    trailing: int = 0
    quoted: int = 0
    headers: int = 0
    renamed: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """Return notes on the unusual rows and the renamed columns."""
        phrases = (
            (self.multiline, "with a line break in a field"),
            (self.trailing, "with empty fields beyond the header"),
            (self.quoted, "with quotes around a field, which in a tsv file are characters"),
            (self.headers, "left out for repeating the header"),
        )
        notes = [f"{count} {'row' if count == 1 else 'rows'} {phrase}" for count, phrase in phrases if count]
        return notes + ([f"columns of the same name are read as {show_names(self.renamed)}"] if self.renamed else [])


class Lines:
    """The decoded lines of a file, with their line ends.

    A line that is not UTF-8 does not end the iteration: its bytes are escaped, and `fault` reports it.

    Attributes:
        number: Number of the line that was read last.
        size: Number of characters of the lines in `taken`.
        taken: Lines since the last call of `forget`: those of one row.
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
            line = line.lstrip("\ufeff")  # byte order marks of concatenated files
        undecoded = None if line.isascii() else _UNDECODED.search(line)
        if undecoded is not None:
            position = len(line[: undecoded.start()].encode("utf-8", "surrogateescape")) + 1
            byte = ord(undecoded[0]) - 0xDC00
            reason = f"not valid UTF-8 (byte 0x{byte:02x}, position {position})"
            self._undecodable = f"line {self.number}", reason, self._suggest_conversion(line)
            line = line.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        elif not line.isascii():
            self._has_utf8 = True
        self.taken.append(line)
        self.size += len(line)
        return line

    @property
    def first(self) -> int:
        """Number of the first line of the row."""
        return self.number - len(self.taken) + 1

    def forget(self) -> None:
        """Start the next row."""
        self.taken.clear()
        self.size, self._undecodable = 0, None

    def undecodable(self) -> RowError | None:
        """Return the error of the row if it is not UTF-8."""
        if self._undecodable is None:
            return None
        return RowError(*self._undecodable, "".join(self.taken))

    def fault(self, reason: str, hint: str, line: int | None = None) -> RowError:
        """Return the error of the row; one that it is not UTF-8 takes precedence."""
        return self.undecodable() or RowError(f"line {line or self.number}", reason, hint, "".join(self.taken))

    def _suggest_conversion(self, line: str) -> str:
        """Return a hint on conversion to UTF-8: a command, if the file may be Windows-1252 as Excel writes it."""
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
