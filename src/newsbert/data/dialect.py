"""Delimiter, quotes and header of csv and tsv files, detected from their first records.

benchmarks/sniffers.py compares the rule for delimiters with other sniffers.
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
"""Columns of a file without a header whose first column has class numbers from 1: the format of AG News.

Source: Zhang, Zhao, LeCun, "Character-level convolutional networks for text classification" (2015), whose data sets
(AG News, Amazon, DBpedia, Yelp) all have this format.
"""

_HEAD_RECORDS = 20_000
_DELIMITERS = {",": "','", ";": "';'", "\t": "tabs", "|": "'|'"}
_MIN_AGREEMENT = 0.5
"""Fraction of the first records; more must have as many fields as the header."""
_MIN_NUMBERED_FRACTION = 0.9
_MAX_TITLES = 10
"""Maximum number of records before the header."""
_MIN_TEXT_WORDS = 4
"""Number of words from which a cell is taken for a text and not for a column name."""

_CLASS_NUMBER = re.compile(r"[1-9][0-9]{0,2}")
_FEW_CLASSES, _MAX_CLASSES = 5, 200
"""Limits of class numbers in few and in many rows. A first column with higher numbers has row numbers."""
_MAX_FAULTY_FRACTION = 0.02
"""Maximum fraction of records in the format of AG News whose first field is no class number."""
_MIN_RECORDS = 4
"""Minimum number of records. In fewer, a label that occurs twice is no evidence about the first line."""

_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_ESCAPED_QUOTE = re.compile(r'(?<!\\)((?:\\\\)*)\\"')


@dataclass(frozen=True)
class Dialect:
    """The dialect of a delimited file.

    Attributes:
        delimiter: Field delimiter.
        quotechar: Quote around fields with a delimiter or a line break; None if quotes are ordinary characters.
        escapes_quotes: Whether a backslash, and not a second quote, escapes a quote in a quoted field.
        skipinitialspace: Whether a blank after a delimiter is ignored.
        skipped_lines: Number of lines before the header.
        header: Column names, if the file has no header or its header lacks a name.
        replaces_header: Whether `header` replaces a header in the file.
        notes: Notes on unusual properties.
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
        """True if the file has no header and its first column has class numbers from 1."""
        return self.header is not None and self.header[0] == CLASS_COLUMN

    def reader(self, lines: Iterable[str]) -> Any:
        """Return a csv reader of the lines."""
        if self.escapes_quotes:  # csv's `escapechar` would apply to every backslash
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
    """The beginning of a file, parsed in a dialect.

    Attributes:
        dialect: The dialect.
        records: The header and the records after it.
        agreement: Fraction of the records that have as many fields as the header.
        num_titles: Number of records before the header.
        num_faulty: Number of records that cannot be parsed.
    """

    dialect: Dialect
    records: list[list[str]]
    agreement: float
    num_titles: int
    num_faulty: int

    @classmethod
    def of(cls, dialect: Dialect, lines: Sequence[str], complete: bool) -> "_Reading":
        """Parse the first records; the last record of an incomplete text is left out."""
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
        num_matching = sum(len(record) >= width and not any(record[width:]) for record in records)
        num_matching = len(records) if _lacks_name(records) else num_matching
        agreement = num_matching / (len(records) + num_faulty) if width > 1 else 0.0
        return cls(dialect, records, agreement, num_titles, num_faulty)


def find(named: str, text: str, newline: str, complete: bool) -> Dialect:
    r"""Detect the dialect of a text.

    Args:
        named: `csv` or `tsv`, by the name of the file.
        text: Beginning of the file, in whole lines.
        newline: Line end: `\n` or `\r`.
        complete: Whether the text is the whole file.
    """
    lines = split_lines(text, newline)
    notes = []
    order = sorted(_DELIMITERS, key=lambda candidate: candidate != ("\t" if named == "tsv" else ","))
    delimiters, skipped = order, 0
    match = re.fullmatch(r'"?sep ?= ?(.)"?\s*', lines[0], re.IGNORECASE) if lines else None
    if match:  # written for Excel
        delimiters, skipped = [match[1]], 1
        notes.append("its first line names the delimiter")
    lines = lines[skipped:]
    candidates = [
        Dialect(delimiter, quotechar, escapes, skipped_lines=skipped)
        for delimiter in delimiters
        for quotechar, escapes in _list_quotes(delimiter, lines, text)
    ]
    reading = _choose_reading([_Reading.of(candidate, lines, complete) for candidate in candidates])
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
    header, header_notes = _infer_header(reading.records)
    replaces = header is None and _lacks_name(reading.records)
    if replaces:
        header, header_notes = ("Unnamed: 0", *reading.records[0]), ["the header has no name for the first column"]
    return replace(dialect, header=header, replaces_header=replaces, notes=(*notes, *header_notes))


def _list_quotes(delimiter: str, lines: Sequence[str], text: str) -> list[tuple[str | None, bool]]:
    """Return the possible quote characters, and whether backslashes escape them in fields."""
    field = "'(?:[^']|'')*'"
    if lines and re.fullmatch(rf"\s*{field}(?:{re.escape(delimiter)} ?{field})+\s*", lines[0]):
        return [("'", False)]
    quotes: list[tuple[str | None, bool]] = [(None, False)] if delimiter == "\t" else []
    return [*quotes, ('"', False), *([('"', True)] if '\\"' in text else [])]


def _choose_reading(readings: Sequence[_Reading]) -> _Reading:
    """Return the reading with the highest agreement; of equal ones, the first.

    Of equal readings, one whose header is in the first line takes precedence.
    """
    best = max(readings, key=lambda reading: (reading.agreement, not reading.num_titles))
    if best.agreement <= _MIN_AGREEMENT:
        return readings[0]
    if best.dialect.quotechar is None:
        quoted = next(
            reading
            for reading in readings
            if reading.dialect.delimiter == best.dialect.delimiter and reading.dialect.quotechar == '"'
        )
        if _has_quoted_delimiter(best, quoted):
            return quoted
        if quoted.agreement == best.agreement and _has_quoted_fields(best, quoted):
            return quoted
    return best


def _has_quoted_delimiter(plain: _Reading, quoted: _Reading) -> bool:
    """Return whether a column name in quotes contains a tab, so that `plain` has too many columns."""
    if quoted.num_faulty or not quoted.records:
        return False
    return len(quoted.records[0]) < len(plain.records[0])


def _has_quoted_fields(plain: _Reading, quoted: _Reading) -> bool:
    """Return whether quotes enclose fields of a tab-separated file.

    pandas, R and Excel write such files; IANA's definition has no quotes around fields.

    Args:
        plain: The file with quotes as ordinary characters.
        quoted: The file with quotes around fields, and as many fields in its records.
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
    """Return the lines of a text with their line ends."""
    return re.findall(rf"[^{newline}]*{newline}|[^{newline}]+", text)


def _count_titles(records: Sequence[Sequence[str]]) -> int:
    """Return the number of records before the header: comments, a title, blank cells."""
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
    """Return whether a record is not part of a table: one cell of several words, a comment, at most one filled cell."""
    filled = [cell for cell in record if cell.strip()]
    if len(filled) < 2:
        return not filled or len(record) > 2 or (len(record) == 1 and (" " in filled[0] or filled[0].startswith("#")))
    return record[0].startswith("#") and len(record) != width


def _lacks_name(records: Sequence[Sequence[str]]) -> bool:
    """Return whether records have one field more than the header, the row number, as R's `write.table` writes it."""
    if len(records) < 2:
        return False
    width = len(records[0]) + 1
    rows = [record for record in records[1:] if len(record) == width and record[0].strip().isdigit() and record[-1]]
    return len({row[0] for row in rows}) == len(rows) > _MIN_NUMBERED_FRACTION * (len(records) - 1)


def _infer_header(records: Sequence[Sequence[str]]) -> tuple[tuple[str, ...] | None, list[str]]:
    """Return column names, if the first record is a data row, and notes for the user."""
    if not records:
        return None, []
    first = [cell.strip() for cell in records[0]]
    if _has_class_numbers(records) and len(first) in CLASS_HEADERS:
        example = " (AG News's are World,Sports,Business,Sci/Tech)" if len(first) == 3 else ""
        note = f"--labels names the classes 1, 2, … in their order{example}"
        return CLASS_HEADERS[len(first)], [_note_missing_header(CLASS_HEADERS[len(first)]), note]
    others = [record for record in records[1:] if list(record) != list(records[0])]
    columns = [[record[place].strip() for record in others if len(record) > place] for place in range(len(first))]
    for cell, below in zip(first, columns, strict=True):
        if cell and cell in below and len(below) >= _MIN_RECORDS and len(set(below)) <= len(below) // 2:
            if all(map(_resembles, first, columns)):
                header = tuple(str(number) for number in range(1, len(first) + 1))
                return header, [_note_missing_header(header)]
            return None, [f"the first line is taken for the header, though {cell!r:.40} stands below it, too"]
    text = next((cell for cell in first if len(cell.split()) >= _MIN_TEXT_WORDS), None)
    if text is not None and not {normalize(cell) for cell in first} & KNOWN_NAMES:
        return None, [f"the first line is taken for the header, though it has {text!r:.40}"]
    return None, []


def _note_missing_header(columns: Sequence[str]) -> str:
    return f"no header, so the columns are called {', '.join(columns)}"


def _has_class_numbers(records: Sequence[Sequence[str]]) -> bool:
    """Return whether the first fields are class numbers from 1, with few exceptions, and not row numbers."""
    values = [record[0].strip() for record in records]
    max_class = max(_FEW_CLASSES, min(_MAX_CLASSES, len(records) // 2))
    faulty = [value for value in values if not (_CLASS_NUMBER.fullmatch(value) and int(value) <= max_class)]
    return (
        values[0] not in faulty
        and len(faulty) <= len(values) * _MAX_FAULTY_FRACTION
        and not records[0][-1].strip().isdigit()
        and values != [str(number) for number in range(1, len(values) + 1)]
    )


def _resembles(cell: str, below: Sequence[str]) -> bool:
    """Return whether a cell may belong to a column.

    It must be a number if all others are, no number if none is, and have several words if all others have.
    """
    numbers = [re.fullmatch(r"[-+]?[0-9.,]+", value) is not None for value in (cell, *below) if value]
    if cell and sum(numbers[1:]) in {0, len(numbers) - 1} and len(numbers) > 1 and numbers[0] != numbers[1]:
        return False
    return len(cell.split()) > 1 or not all(len(value.split()) > 1 for value in below if value) or not any(below)
