"""Delimiter, quotes and header of csv and tsv files, found in their first records.

The rule for delimiters was compared with other sniffers: benchmarks/sniffers.py.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from newsbert.data.row_columns import KNOWN_NAMES, normalize

CLASS_COLUMN = "class"
CLASS_HEADERS = {2: (CLASS_COLUMN, "text"), 3: (CLASS_COLUMN, "title", "description")}
"""The columns of a file without a header whose first column counts classes from 1: AG News's own form.

Source: Zhang, Zhao, LeCun, "Character-level convolutional networks for text classification" (2015), whose data sets
(AG News, Amazon, DBpedia, Yelp) all have it.
"""

_HEAD_RECORDS = 20_000
_DELIMITERS = {",": "','", ";": "';'", "\t": "tabs", "|": "'|'"}
_MAJORITY = 0.5
"""Of the first records, which have as many fields as the header."""
_ALMOST_ALL = 0.9
_MAX_TITLES = 10
"""Records that may stand before the header."""
_ROW_WORDS = 4
"""A cell of as many words is rather a text than the name of a column."""

_CLASS = re.compile(r"[1-9][0-9]{0,2}")
_FEW_CLASSES, _MAX_CLASSES = 5, 200
"""A first column that counts to more than the latter, or in few rows to more than the former, numbers the rows."""
_MAX_FAULTY = 0.02
"""Of records in the form of AG News, those whose first field may be no class."""
_MIN_RECORDS = 4
"""Of fewer, a label that stands twice says nothing of the first line."""

_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_ESCAPED_QUOTE = re.compile(r'(?<!\\)((?:\\\\)*)\\"')


@dataclass(frozen=True)
class Dialect:
    """How the lines of a file are read.

    Attributes:
        delimiter: What stands between fields.
        quotechar: What a field is put in that holds a delimiter or a line break; nothing where a quote is a character.
        escapes_quotes: Whether a backslash stands before a quote in such a field, and not another quote.
        skipinitialspace: Whether a blank after a delimiter is none of the field.
        skipped_lines: How many lines stand before the header.
        header: The columns, where the file has no header or one that lacks a name.
        replaces_header: Whether the file has a header that `header` stands for.
        notes: What of it is not plain.
    """

    delimiter: str
    quotechar: str | None = '"'
    escapes_quotes: bool = False
    skipinitialspace: bool = False
    skipped_lines: int = 0
    header: tuple[str, ...] | None = None
    replaces_header: bool = False
    notes: tuple[str, ...] = ()

    @property
    def counts_classes(self) -> bool:
        """Whether there is no header, and a column of classes that counts from 1."""
        return self.header is not None and self.header[0] == CLASS_COLUMN

    def reader(self, lines: Iterable[str]) -> Any:
        """Return a reader of the records in lines."""
        if self.escapes_quotes:  # not csv's `escapechar`, which takes every backslash for one
            lines = (_ESCAPED_QUOTE.sub(r'\1""', line) for line in lines)
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            quotechar=self.quotechar,
            quoting=csv.QUOTE_NONE if self.quotechar is None else csv.QUOTE_MINIMAL,
            skipinitialspace=self.skipinitialspace,
            strict=True,
        )


@dataclass(frozen=True)
class _Reading:
    """The beginning of a file as a dialect reads it.

    Attributes:
        dialect: The dialect.
        records: The header and what follows.
        agreement: How many of the records have as many fields as the header, as a ratio.
        num_titles: How many records stand before the header.
        num_faulty: How many records cannot be read.
    """

    dialect: Dialect
    records: list[list[str]]
    agreement: float
    num_titles: int
    num_faulty: int

    @classmethod
    def of(cls, dialect: Dialect, lines: Sequence[str], complete: bool) -> "_Reading":
        """Read the first records; the last one of a text that is not complete is left out."""
        records: list[list[str]] = []
        begins: list[int] = []
        num_faulty, is_faulty = 0, False
        reader = dialect.reader(lines)
        while len(records) < _HEAD_RECORDS:
            begin = reader.line_num
            try:
                record = next(reader)
                is_faulty = False
            except csv.Error:
                num_faulty, is_faulty = num_faulty + 1, True
                continue
            except StopIteration:
                if not complete and is_faulty:
                    num_faulty -= 1
                elif not complete:
                    del records[-1:]
                break
            if record:
                records.append(record)
                begins.append(begin)
        num_titles = _count_titles(records)
        if num_titles:
            dialect = replace(dialect, skipped_lines=dialect.skipped_lines + begins[num_titles])
        records = records[num_titles:]
        width = len(records[0]) if records else 0
        same = sum(len(record) >= width and not any(record[width:]) for record in records)
        same = len(records) if _lacks_name(records) else same
        agreement = same / (len(records) + num_faulty) if width > 1 else 0.0
        return cls(dialect, records, agreement, num_titles, num_faulty)


def find(named: str, text: str, newline: str, complete: bool) -> Dialect:
    r"""Find the dialect of a text.

    Args:
        named: `csv` or `tsv`, as the file's name tells.
        text: The file's beginning, in whole lines.
        newline: What ends a line: `\n` or `\r`.
        complete: Whether that is the whole file.
    """
    lines = split_lines(text, newline)
    notes = []
    order = sorted(_DELIMITERS, key=lambda candidate: candidate != ("\t" if named == "tsv" else ","))
    delimiters, skipped = order, 0
    match = re.fullmatch(r'"?sep ?= ?(.)"?\s*', lines[0], re.IGNORECASE) if lines else None
    if match:  # for Excel
        delimiters, skipped = [match[1]], 1
        notes.append("its first line names the delimiter")
    lines = lines[skipped:]
    candidates = [
        Dialect(delimiter, quotechar, escapes, skipped_lines=skipped)
        for delimiter in delimiters
        for quotechar, escapes in _quotes(delimiter, lines, text)
    ]
    reading = _choose([_Reading.of(candidate, lines, complete) for candidate in candidates])
    dialect = reading.dialect
    if any(re.fullmatch(r'\s+"[^"]*"', cell) for record in reading.records for cell in record[1:]):
        spaced = _Reading.of(replace(dialect, skipinitialspace=True, skipped_lines=skipped), lines, complete)
        if dialect.quotechar == '"' and spaced.num_faulty <= reading.num_faulty:
            reading, dialect = spaced, spaced.dialect
    if dialect.delimiter != order[0]:
        notes.append(f"{_DELIMITERS.get(dialect.delimiter, repr(dialect.delimiter))} between fields")
    count = dialect.skipped_lines - skipped
    if any(line.strip() for line in lines[:count]):
        notes.append(f"{count} line{'' if count == 1 else 's'} before the header left out")
    if dialect.delimiter == "\t" and dialect.quotechar == '"':
        notes.append("fields in quotes")
    elif dialect.quotechar == "'":
        notes.append("fields in single quotes")
    if dialect.escapes_quotes:
        notes.append("'\\' before quotes in fields")
    header, said = _missing_header(reading.records)
    replaces = header is None and _lacks_name(reading.records)
    if replaces:
        header, said = ("Unnamed: 0", *reading.records[0]), ["the header has no name for the first column"]
    return replace(dialect, header=header, replaces_header=replaces, notes=(*notes, *said))


def _quotes(delimiter: str, lines: Sequence[str], text: str) -> list[tuple[str | None, bool]]:
    """Return what may enclose fields: characters, and whether backslashes stand before them in fields."""
    field = "'(?:[^']|'')*'"
    if lines and re.fullmatch(rf"\s*{field}(?:{re.escape(delimiter)} ?{field})+\s*", lines[0]):
        return [("'", False)]
    quotes: list[tuple[str | None, bool]] = [(None, False)] if delimiter == "\t" else []
    return [*quotes, ('"', False), *([('"', True)] if '\\"' in text else [])]


def _choose(readings: Sequence[_Reading]) -> _Reading:
    """Return the reading in which most records have as many fields as the header; of equal ones, the first.

    One whose header is in the first line goes before those with lines above it.
    """
    best = max(readings, key=lambda reading: (reading.agreement, not reading.num_titles))
    if best.agreement <= _MAJORITY:
        return readings[0]
    if best.dialect.quotechar is None:
        quoted = next(
            reading
            for reading in readings
            if reading.dialect.delimiter == best.dialect.delimiter and reading.dialect.quotechar == '"'
        )
        if quoted.agreement == best.agreement and _quotes_enclose(best, quoted):
            return quoted
    return best


def _quotes_enclose(plain: _Reading, quoted: _Reading) -> bool:
    """Return whether quotes enclose fields of a file with tabs, as pandas, R and Excel write it, not IANA's definition.

    Args:
        plain: The file, a quote being a character.
        quoted: The file, quotes enclosing fields, with as many fields in its records.
    """
    if all(map(_QUOTED.fullmatch, plain.records[0])):
        return True
    cells = [cell for record in plain.records for cell in record]
    opened = [cell for cell in cells if cell.startswith('"')]
    if not opened or quoted.num_faulty:
        return False
    if not all(map(_QUOTED.fullmatch, opened)):
        return any("\n" in cell for record in quoted.records for cell in record)
    if any('""' in cell[1:-1] for cell in opened):
        return True
    others = [cell for cell in cells if not cell.startswith('"')]
    return any("," in cell for cell in opened) and not any("," in cell or '"' in cell for cell in others)


def split_lines(text: str, newline: str) -> list[str]:
    """Return the lines of a text with their ends."""
    return re.findall(rf"[^{newline}]*{newline}|[^{newline}]+", text)


def _count_titles(records: Sequence[Sequence[str]]) -> int:
    """Return how many records stand before the header: comments, a title, blank cells."""
    widths = Counter(len(record) for record in records)
    width = max(widths, key=lambda width: (widths[width], width), default=0)
    if width < 2:
        return 0
    names = [sum(normalize(cell) in KNOWN_NAMES for cell in record) for record in records[: _MAX_TITLES + 1]]
    if not names[0] and max(names) > 1:
        return next(place for place, count in enumerate(names) if count > 1)
    for place, record in enumerate(records[: _MAX_TITLES + 1]):
        if names[place] or not _is_title(record, width):
            return place if len(records) > place + 1 else 0
    return 0


def _is_title(record: Sequence[str], width: int) -> bool:
    """Return whether a record is none of a table: one cell of several words, a comment, or blank but for one cell."""
    filled = [cell for cell in record if cell.strip()]
    if len(filled) < 2:
        return not filled or len(record) > 2 or (len(record) == 1 and (" " in filled[0] or filled[0].startswith("#")))
    return record[0].startswith("#") and len(record) != width


def _lacks_name(records: Sequence[Sequence[str]]) -> bool:
    """Return whether records have a field more than the header, the number of the row: R's `write.table`."""
    if len(records) < 2:
        return False
    width = len(records[0]) + 1
    rows = [record for record in records[1:] if len(record) == width and record[0].strip().isdigit() and record[-1]]
    return len({row[0] for row in rows}) == len(rows) > _ALMOST_ALL * (len(records) - 1)


def _missing_header(records: Sequence[Sequence[str]]) -> tuple[tuple[str, ...] | None, list[str]]:
    """Return names of the columns, if the first record is a row like the others, and what is to be said of it."""
    if not records:
        return None, []
    first = [cell.strip() for cell in records[0]]
    if _counts_classes(records) and len(first) in CLASS_HEADERS:
        example = " (AG News's are World,Sports,Business,Sci/Tech)" if len(first) == 3 else ""
        said = f"--labels names the classes 1, 2, … in their order{example}"
        return CLASS_HEADERS[len(first)], [_no_header(CLASS_HEADERS[len(first)]), said]
    others = [record for record in records[1:] if list(record) != list(records[0])]
    columns = [[record[place].strip() for record in others if len(record) > place] for place in range(len(first))]
    for cell, below in zip(first, columns, strict=True):
        if cell and cell in below and len(below) >= _MIN_RECORDS and len(set(below)) <= len(below) // 2:
            if all(map(_resembles, first, columns)):
                header = tuple(str(number) for number in range(1, len(first) + 1))
                return header, [_no_header(header)]
            return None, [f"the first line is taken for the header, though {cell!r:.40} stands below it, too"]
    text = next((cell for cell in first if len(cell.split()) >= _ROW_WORDS), None)
    if text is not None and not {normalize(cell) for cell in first} & KNOWN_NAMES:
        return None, [f"the first line is taken for the header, though it has {text!r:.40}"]
    return None, []


def _no_header(columns: Sequence[str]) -> str:
    return f"no header, so the columns are called {', '.join(columns)}"


def _counts_classes(records: Sequence[Sequence[str]]) -> bool:
    """Return whether the first fields count classes from 1, but for a few, and not the rows."""
    values = [record[0].strip() for record in records]
    most = max(_FEW_CLASSES, min(_MAX_CLASSES, len(records) // 2))
    faulty = [value for value in values if not (_CLASS.fullmatch(value) and int(value) <= most)]
    return (
        values[0] not in faulty
        and len(faulty) <= len(values) * _MAX_FAULTY
        and not records[0][-1].strip().isdigit()
        and values != [str(number) for number in range(1, len(values) + 1)]
    )


def _resembles(cell: str, below: Sequence[str]) -> bool:
    """Return whether a cell may be one of a column: of numbers if they are, and of words if all have several."""
    numbers = [re.fullmatch(r"[-+]?[0-9.,]+", value) is not None for value in (cell, *below) if value]
    if cell and sum(numbers[1:]) in {0, len(numbers) - 1} and len(numbers) > 1 and numbers[0] != numbers[1]:
        return False
    return len(cell.split()) > 1 or not all(len(value.split()) > 1 for value in below if value) or not any(below)
