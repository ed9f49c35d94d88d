"""Columns of title, text and label, and the values of their cells."""

import itertools
import math
import re
import shlex
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from newsbert.core.terminal import has_controls
from newsbert.data.text import clean
from newsbert.errors import DataError

NAMES_OF_TEXTS = ("text", "content", "body", "sentence", "headline", "title", "description")
NAMES_OF_LABELS = ("label", "category", "class", "topic", "target", "sentiment", "stars", "rating", "score")
"""Usual column names, in the order in which they are tried."""

KNOWN_NAMES = {
    *("text", "content", "body", "sentence", "headline", "title", "description", "article", "comment", "message"),
    *("review", "tweet", "news", "summary", "document", "question", "utterance", "story", "post", "lead", "abstract"),
    *("label", "category", "class", "topic", "target", "sentiment", "labels", "categories", "classes", "topics"),
    *(
        "subject",
        "intent",
        "section",
        "genre",
        "rating",
        "stars",
        "score",
        "id",
        "index",
        "url",
        "link",
        "date",
        "time",
    ),
    *("author", "source", "split", "language"),
}
"""Column names of which one suffices to recognize a header."""

_MAX_NAMES, _MAX_NAME_CHARS = 20, 60
"""Limits of an error message: the number of column names, and the length of a name."""
_MIN_TEXT_WORDS = 4
"""Number of words from which a column name suggests that a data row was taken for the header."""

ID = re.compile(r"0|-?[1-9][0-9]{0,17}")
_WHOLE = re.compile(r"(0|-?[1-9][0-9]{0,17})\.0+")
_BOOLEANS = {"true", "false"}
_MISSING_VALUES = {"", "nan", "<na>"}
"""Contents of empty cells that pandas has written; `None` and `null` may be names of classes."""
UNREADABLE = b"\xff"
"""Placeholder for a cell of a parquet file that Python cannot represent, such as a date out of its range."""
_INVISIBLE = re.compile("[\u00ad\u061c\u200b\u200e\u200f\u2060\ufeff]")
"""Soft hyphen, direction marks, zero-width space, word joiner, byte order mark.

Joiners between letters are not included, because some scripts need them.
"""


def normalize(name: str) -> str:
    """Return a column name without differences in case and in surrounding blanks."""
    return name.strip(" \t\r\n\ufeff").casefold()


def find(columns: Sequence[str], requested: str) -> str | None:
    """Return the column with a name, or the only one whose name differs in case and blanks alone."""
    if requested in columns:
        return requested
    alike = [name for name in columns if normalize(name) == normalize(requested)]
    return alike[0] if len(alike) == 1 else None


def find_texts(columns: Sequence[str], requested: str | None, data: str = "") -> tuple[str | None, str]:
    """Return the columns of title (if any) and text.

    Args:
        columns: All columns.
        requested: Column of the text, if it is not `text` (or `title` with `text` or `description`).
        data: Name of the data, for the error.

    Raises:
        DataError: If there is no such column.
    """
    text = next((name for name in find_all(columns, [requested] if requested else ("text", "description"))), None)
    if text is None:
        raise _build_missing_error(columns, requested or "text", "--text-column", data)
    return (find(columns, "title") if requested is None else None), text


def choose(columns: Sequence[str], requested: str | None, likely: Iterable[str | None]) -> str | None:
    """Return the requested column, or else the first likely column that exists."""
    return requested or next(find_all(columns, filter(None, likely)), None)


def find_label(columns: Sequence[str], requested: str, data: str = "") -> str:
    """Return the column of the label.

    Raises:
        DataError: If there is no such column.
    """
    label = find(columns, requested)
    if label is None:
        raise _build_missing_error(columns, requested, "--label-column", data)
    return label


def find_all(columns: Sequence[str], names: Iterable[str]) -> Iterator[str]:
    """Yield the columns that exist, in the order of `names`."""
    return (column for name in names if (column := find(columns, name)) is not None)


def find_named_like(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the first column that has one of these names, or ends with one as a word: `airline_sentiment`."""
    last_words = {column: re.split(r"[\s_.-]+", normalize(column))[-1] for column in columns}
    ending = (column for name in names for column in columns if last_words[column] == name)
    return next(itertools.chain(find_all(columns, names), ending), None)


def text_of(row: Mapping[str, Any], column: str | None) -> str:
    """Return the text in a cell: a number as it is written, an empty text for an empty cell.

    Raises:
        ValueError: If the value is a list, an object, or otherwise no text.
    """
    value = row.get(column) if column is not None else None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    value = _decode(value)
    if isinstance(value, bytes):
        raise ValueError("the text is not valid UTF-8")
    if not isinstance(value, str | int | float):
        raise ValueError(f"the text is no text but {value!r:.80}")
    return str(value)


def label_of(row: Mapping[str, Any], column: str) -> int | str:
    """Return the label in a cell: an id, a name, or an empty text.

    It is the same for the same value in all formats. `1`, `1.0` and `" 1"` are one id, `true` and `True` one name. An
    id must be written without leading zeros: `007` is a name.

    Raises:
        ValueError: If the value is a list or an object, or has a control character.
    """
    value = row.get(column)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    value = _decode(value[0] if isinstance(value, list) and len(value) == 1 else value)
    if isinstance(value, list) and value:
        raise ValueError(f"a row has one label, got {len(value)}: {value!r:.80}")
    if isinstance(value, list | dict | bytes):
        raise ValueError(f"a label must be a text or a number, got {value!r:.80}")
    text = _INVISIBLE.sub("", unicodedata.normalize("NFC", str(value))).strip()
    if has_controls(text):
        raise ValueError(f"the label {value!r:.80} holds a control character")
    text = clean(text, ("unicode", "whitespace"))
    if text.lower() in _MISSING_VALUES:
        return ""
    if text.lower() in _BOOLEANS:
        return text.lower()
    whole = _WHOLE.fullmatch(text)
    text = whole[1] if whole else text
    return int(text) if ID.fullmatch(text) else text


def _decode(value: object) -> object:
    """Decode a value that is bytes, as texts in parquet files may be."""
    if isinstance(value, bytes):
        with suppress(UnicodeDecodeError):
            return value.decode()
    return value


def show_names(columns: Sequence[str]) -> str:
    """Return the names of columns for an error message, limited in number and length."""
    names = [" ".join(name[: _MAX_NAME_CHARS + 1].split()) for name in columns[:_MAX_NAMES]]
    names = [name if len(name) <= _MAX_NAME_CHARS else f"{name[:_MAX_NAME_CHARS]}…" for name in names]
    return ", ".join(names) + (f" and {len(columns) - _MAX_NAMES} more" if len(columns) > _MAX_NAMES else "")


def _build_missing_error(columns: Sequence[str], requested: str, option: str, data: str) -> DataError:
    where = f"{data}: " if data else ""
    hint = f"name it with {option}, or have it guessed: newsbert init {shlex.quote(data) if data else 'FILE'}"
    if any(len(name.split()) >= _MIN_TEXT_WORDS for name in columns):
        hint = "if the file has no header, put one above its rows, such as: label,text"
    return DataError(f"{where}no column {requested!r}; the columns are: {show_names(columns)}", hint)
