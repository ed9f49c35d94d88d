"""Delimiter, quotes and header of csv and tsv files, found in their first records.

The rule for delimiters was compared with other sniffers: benchmarks/sniffers.py.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from newsbert.row_columns import KNOWN_NAMES, normalize

CLASS_COLUMN = "class"
CLASS_HEADERS = {2: (CLASS_COLUMN, "text"), 3: (CLASS_COLUMN, "title", "description")}
"""The columns of a file without a header whose first column counts classes from 1: AG News's own form.

Source: Zhang, Zhao, LeCun, "Character-level convolutional networks for text classification" (2015), whose data sets
(AG News, Amazon, DBpedia, Yelp) all have it.
"""

_HEAD_RECORDS = 1000
_SNIFFED_RECORDS = 50
_DELIMITERS = {",": "','", ";": "';'", "\t": "tabs", "|": "'|'"}
_MAJORITY = 0.5
"""Of the first records, which have as many fields as the header."""
_ALMOST_ALL = 0.9
_MAX_TITLE_LINES = 10
"""Lines that may stand before the header."""

_CLASS = re.compile(r"[1-9][0-9]{0,2}")
_FEW_CLASSES, _MAX_CLASSES = 5, 200
"""A first column that counts to more than the latter, or in few rows to more than the former, numbers the rows."""
_MAX_FAULTY = 0.02
"""Of records in the form of AG News, those whose first field may be no class."""
_MIN_RECORDS = 4
"""Of fewer, a label that stands twice says nothing of the first line."""

_QUOTED = re.compile(r'"(?:[^"]|"")*"')


@dataclass(frozen=True)
class Dialect:
    """How the lines of a file are read.

    Attributes:
        delimiter: What stands between fields.
        quotechar: What a field is put in that holds a delimiter or a line break; nothing where a quote is a character.
        escapechar: What stands before a quote in such a field, where it is not another quote.
        skipinitialspace: Whether a blank after a delimiter is none of the field.
        skipped_lines: How many lines stand before the header.
        header: The columns, where the file has no header or one that lacks a name.
        replaces_header: Whether the file has a header that `header` stands for.
        notes: What of it is not plain.
    """

    delimiter: str
    quotechar: str | None = '"'
    escapechar: str | None = None
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
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            quotechar=self.quotechar,
            quoting=csv.QUOTE_NONE if self.quotechar is None else csv.QUOTE_MINIMAL,
            escapechar=self.escapechar,
            skipinitialspace=self.skipinitialspace,
            strict=True,
        )


def find(named: str, text: str, newline: str) -> Dialect:
    r"""Find the dialect of a text.

    Args:
        named: `csv` or `tsv`, as the file's name tells.
        text: The file's beginning, in whole lines.
        newline: What ends a line: `\n` or `\r`.
    """
    lines = split_lines(text, newline)
    notes = []
    skipped, delimiter = 0, ""
    match = re.fullmatch(r"sep=(.)\s*", lines[0], re.IGNORECASE) if lines else None
    if match:  # for Excel
        delimiter, skipped = match[1], 1
        notes.append("its first line names the delimiter")
    order = sorted(_DELIMITERS, key=lambda candidate: candidate != ("\t" if named == "tsv" else ","))
    dialect = Dialect(delimiter or _delimiter(lines[skipped:], order))
    if dialect.delimiter != order[0]:
        notes.append(f"{_DELIMITERS.get(dialect.delimiter, repr(dialect.delimiter))} between fields")
    titles = _title_lines(lines[skipped:], dialect)
    if any(line.strip() for line in lines[skipped : skipped + titles]):
        notes.append(f"{titles} line{'' if titles == 1 else 's'} before the header left out")
    skipped += titles
    dialect = _with_quotes(replace(dialect, skipped_lines=skipped), lines[skipped:])
    if named == "tsv" and dialect.delimiter == "\t" and dialect.quotechar:
        notes.append("fields in quotes")
    elif dialect.quotechar == "'":
        notes.append("fields in single quotes")
    if dialect.escapechar:
        notes.append(f"{dialect.escapechar!r} before quotes in fields".replace("\\\\", "\\"))
    records = _records(lines[skipped:], dialect, _HEAD_RECORDS)
    header, said = _missing_header(records)
    replaces = header is None and _lacks_name(records)
    if replaces:
        header, said = ("Unnamed: 0", *records[0]), ["the header has no name for the first column"]
    return replace(dialect, header=header, replaces_header=replaces, notes=(*notes, *said))


def split_lines(text: str, newline: str) -> list[str]:
    """Return the lines of a text with their ends."""
    return re.findall(rf"[^{newline}]*{newline}|[^{newline}]+", text)


def _records(lines: Iterable[str], dialect: Dialect, most: int) -> list[list[str]]:
    """Return the first records of lines, without blank ones, as far as they can be read."""
    return [record for record in _read(lines, dialect, most) if record]


def _read(lines: Iterable[str], dialect: Dialect, most: int) -> list[list[str] | None]:
    """Return the first records of lines, without blank lines, and nothing for each that cannot be read."""
    found: list[list[str] | None] = []
    reader = dialect.reader(lines)
    while len(found) < most:
        try:
            record = next(reader)
        except csv.Error:
            found.append(None)
            continue
        except StopIteration:
            break
        found += [record] if record else []
    return found


def _delimiter(lines: Sequence[str], order: Sequence[str]) -> str:
    """Return the delimiter by which all first records, or else most, have as many fields as the header: two or more.

    Lines before the header are those without the delimiter.
    """
    agreeing: dict[str, float] = {}
    for delimiter in order:
        records = _records(lines, Dialect(delimiter, None if delimiter == "\t" else '"'), _SNIFFED_RECORDS)
        if records and not _names(re.split(r"[,;\t|]", lines[0])):
            titles = next((i for i, record in enumerate(records[:_MAX_TITLE_LINES]) if len(record) > 1), 0)
            records = records[titles:]
        width = len(records[0]) if records else 0
        if width > 1:
            same = [not any(record[width:]) and len(record) >= width for record in records]
            agreeing[delimiter] = sum(same) / len(same)
    best = max(agreeing.values(), default=0.0)
    if best <= _MAJORITY:
        return order[0]
    return next(delimiter for delimiter, ratio in agreeing.items() if ratio == best)


def _title_lines(lines: Sequence[str], dialect: Dialect) -> int:
    """Return how many lines stand before the header: comments, a title, blank cells."""
    blank = next((place for place, line in enumerate(lines) if line.strip()), 0)
    above: list[list[str]] = []
    for line in lines[: _MAX_TITLE_LINES + 1]:
        cells = next(iter(_records([line], dialect, 1)), [])
        if _names(cells):  # they tell the header from comments with as many delimiters
            are_titles = all((cells[:1] and cells[0].startswith("#")) or _is_title(cells) for cells in above)
            return len(above) if are_titles else blank
        above.append(cells)
    widths = Counter(len(record) for record in _records(lines, dialect, _SNIFFED_RECORDS))
    width = max(widths, key=lambda width: (widths[width], width), default=0)
    for titles, cells in enumerate(above):
        if not _is_title(cells) and not (cells[0].startswith("#") and len(cells) != width):
            return titles if width > 1 and widths.total() > titles + 1 else blank
    return blank


def _is_title(cells: Sequence[str]) -> bool:
    """Return whether a record has one cell, or only one that is not blank."""
    return len(cells) < 2 or (len(cells) > 2 and sum(1 for cell in cells if cell.strip()) < 2)


def _names(cells: Iterable[str]) -> bool:
    """Return whether one of the cells is a name that columns of texts or labels often have."""
    return any(normalize(cell.strip().strip("'\"")) in KNOWN_NAMES for cell in cells)


def _with_quotes(dialect: Dialect, lines: Sequence[str]) -> Dialect:
    """Return the dialect with what quotes mean in it."""
    if dialect.delimiter == "\t" and not _quotes_enclose(dialect, lines):
        return replace(dialect, quotechar=None)
    records = _records(lines, dialect, _HEAD_RECORDS)
    if not records:
        return dialect
    if sum(any(re.match(r'\s+"', cell) for cell in record) for record in records) > len(records) * _MAJORITY:
        dialect = replace(dialect, skipinitialspace=True)
    elif re.fullmatch(rf"'[^']*'(?:{re.escape(dialect.delimiter)} ?'[^']*')+\s*", lines[0]):
        dialect = replace(dialect, quotechar="'", skipinitialspace=f"{dialect.delimiter} '" in lines[0])
    quoted = f"\\{dialect.quotechar}"
    if any(quoted in line for line in lines):
        escaped = replace(dialect, escapechar="\\")
        faulty = [_read(lines, candidate, _HEAD_RECORDS).count(None) for candidate in (dialect, escaped)]
        if faulty[1] < faulty[0]:
            return escaped
    return dialect


def _quotes_enclose(dialect: Dialect, lines: Sequence[str]) -> bool:
    """Return whether quotes enclose fields of a file with tabs, as pandas and R write it, not IANA's definition.

    They do if the lines are records only so, or if all that begin with one are whole, and hold what needs them.
    """
    plain, quoted = (_records(lines, replace(dialect, quotechar=char), _HEAD_RECORDS) for char in (None, '"'))
    faulty = _read(lines, dialect, _HEAD_RECORDS).count(None)
    if not plain or not quoted:
        return False
    if all(map(_QUOTED.fullmatch, plain[0])):
        return True
    opened = [cell for record in plain for cell in record if cell.startswith('"')]
    width = len(quoted[0])
    whole = not faulty and all(len(record) == width for record in quoted)
    if not whole or not opened:
        return False
    if any(len(record) != width for record in plain):
        return True
    return all(map(_QUOTED.fullmatch, opened)) and any('""' in cell[1:-1] for cell in opened)


def _lacks_name(records: Sequence[Sequence[str]]) -> bool:
    """Return whether records have a field more than the header, the number of the row: R's `write.table`."""
    if len(records) < 2:
        return False
    width = len(records[0]) + 1
    numbers = [record[0] for record in records[1:] if len(record) == width and record[0].strip().isdigit()]
    return len(numbers) == len(set(numbers)) and len(numbers) > _ALMOST_ALL * (len(records) - 1)


def _missing_header(records: Sequence[Sequence[str]]) -> tuple[tuple[str, ...] | None, list[str]]:
    """Return names of the columns, if the first record is a row like the others, and what is to be said of it."""
    if not records:
        return None, []
    first = [cell.strip() for cell in records[0]]
    if _counts_classes(records) and len(first) in CLASS_HEADERS:
        example = " (AG News's are World,Sports,Business,Sci/Tech)" if len(first) == 3 else ""
        said = f"--labels names the classes 1, 2, … in their order{example}"
        return CLASS_HEADERS[len(first)], [_no_header(CLASS_HEADERS[len(first)]), said]
    if _names(first):
        return None, []
    others = [record for record in records[1:] if list(record) != list(records[0])]
    columns = [[record[place].strip() for record in others if len(record) > place] for place in range(len(first))]
    for cell, below in zip(first, columns, strict=True):
        if cell and cell in below and len(below) >= _MIN_RECORDS and len(set(below)) <= len(below) // 2:
            if all(map(_resembles, first, columns)):
                header = tuple(str(number) for number in range(1, len(first) + 1))
                return header, [_no_header(header)]
            return None, [f"the first line is taken for the header, though {cell!r:.40} stands below it, too"]
    return None, []


def _no_header(columns: Sequence[str]) -> str:
    return f"no header, so the columns are called {', '.join(columns)}"


def _counts_classes(records: Sequence[Sequence[str]]) -> bool:
    """Return whether the first fields count classes from 1, but for a few."""
    values = [record[0].strip() for record in records]
    most = max(_FEW_CLASSES, min(_MAX_CLASSES, len(records) // 2))
    faulty = [value for value in values if not (_CLASS.fullmatch(value) and int(value) <= most)]
    return values[0] not in faulty and len(faulty) <= len(values) * _MAX_FAULTY and not records[0][-1].strip().isdigit()


def _resembles(cell: str, below: Sequence[str]) -> bool:
    """Return whether a cell may be one of a column: of numbers if they are, and of words if all have several."""
    numbers = [re.fullmatch(r"[-+]?[0-9.,]+", value) is not None for value in (cell, *below) if value]
    if cell and sum(numbers[1:]) in {0, len(numbers) - 1} and len(numbers) > 1 and numbers[0] != numbers[1]:
        return False
    return len(cell.split()) > 1 or not all(len(value.split()) > 1 for value in below if value) or not any(below)
