"""Rows of delimited files: csv and tsv."""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from newsbert.data.dialect import Dialect
from newsbert.data.lines import Lines, RowError, Sized, Tally
from newsbert.data.row_columns import NAMES_OF_LABELS, NAMES_OF_TEXTS, normalize, show_names
from newsbert.errors import DataError

_MAX_FIELD_CHARS = 64 << 20  # a longer field has an unclosed quote, and must not fill the memory
_SURPLUS_HINT = "quote fields that hold the delimiter, a quote or a line break"
_SURPLUS_TABS_HINT = "take tabs and line breaks out of fields, or write the file as csv with such fields in quotes"
_UNIQUE_COLUMNS = {"title", "split", *NAMES_OF_TEXTS, *NAMES_OF_LABELS}
"""Columns whose name may occur only once."""

_UNCLOSED_QUOTE_ERRORS = ("unexpected end of data", f"field larger than field limit ({_MAX_FIELD_CHARS})")


def read(path: Path, dialect: Dialect, lines: Lines, tally: Tally) -> Iterator[Sized]:
    """Yield the rows of a file, and a `RowError` for every row that cannot be read.

    Raises:
        DataError: If the header cannot be read, or a quote is never closed.
    """
    csv.field_size_limit(_MAX_FIELD_CHARS)
    hint = "quote fields as RFC 4180 says"
    reader = dialect.reader(lines)
    header = list(dialect.header) if dialect.header is not None and not dialect.replaces_header else None
    repeated: list[str] = []  # the header as written in the file; concatenated files repeat it
    while True:
        lines.forget()
        try:
            fields = next(reader, None)
        except csv.Error as error:
            # An unclosed quote makes the rest of a file unreadable, but in the last line it affects one row only.
            if len(lines.taken) > 1 and str(error) in _UNCLOSED_QUOTE_ERRORS:
                raise DataError(
                    f"{path}, line {lines.first}: a quote is opened there and never closed", hint
                ) from error
            fault = lines.fault(str(error), hint)
            if header is None:
                raise fault.error(path) from error
            yield fault, lines.size
            continue
        if fields is None:
            return
        if not fields:  # a blank line
            continue
        undecodable = lines.undecodable()
        if header is None:
            if undecodable is not None:
                raise undecodable.error(path)
            header, repeated = _build_header(path, list(dialect.header or fields), tally), fields
        elif undecodable is not None:
            yield undecodable, lines.size
        elif fields == repeated or (len(fields) > 1 and list(map(normalize, fields)) == list(map(normalize, repeated))):
            tally.headers += 1
            yield (
                RowError(f"line {lines.first}", "it repeats the header", "remove it", "".join(lines.taken), True),
                lines.size,
            )
        elif len(fields) < len(header) or any(fields[len(header) :]):
            reason = f"{len(fields)} fields, but the header has {len(header)}"
            yield lines.fault(reason, _SURPLUS_HINT if dialect.quotechar else _SURPLUS_TABS_HINT), lines.size
        else:
            tally.multiline += len(lines.taken) > 1
            tally.trailing += len(fields) > len(header)
            tally.quoted += dialect.quotechar is None and any(
                len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in fields
            )
            yield dict(zip(header, fields, strict=False)), lines.size


def _build_header(path: Path, fields: list[str], tally: Tally) -> list[str]:
    """Return column names as pandas makes them: a blank one becomes `Unnamed: 2`, the second `x` becomes `x.1`.

    Raises:
        DataError: If two columns have the same name, which may be that of texts or labels.
    """
    header: dict[str, None] = {}
    counts: Counter[str] = Counter()
    tally.renamed.clear()
    for place, field in enumerate(fields):
        name = new = field if field.strip() else f"Unnamed: {place}"
        if name in header and normalize(name) in _UNIQUE_COLUMNS:
            raise DataError(f"{path}: two columns have the same name: {show_names(fields)}", "rename one of them")
        while new in header:
            counts[name] += 1
            new = f"{name}.{counts[name]}"
        if new != name:
            tally.renamed.append(new)
        header[new] = None
    return list(header)
