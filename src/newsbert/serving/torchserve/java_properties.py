"""Java's properties files (`java.util.Properties`): the only place where one is written."""

from collections.abc import Mapping

_ESCAPES = {
    "\\": "\\\\",
    "\t": "\\t",
    "\n": "\\n",
    "\r": "\\r",
    "\f": "\\f",
    "#": "\\#",
    "!": "\\!",
    "=": "\\=",
    ":": "\\:",
}
_FIRST_UNICODE_ESCAPE = 0x7F


def dump(properties: Mapping[str, object]) -> bytes:
    """Return a file from which `Properties.load` reads exactly these keys and values, whatever is in them.

    Args:
        properties: Values by key; what is no string is written as `str` has it.

    Raises:
        ValueError: If a text holds half a surrogate pair, such as a file name that is not UTF-8.
    """
    lines = [f"{_escape(key, blanks=True)}={_escape(str(value), blanks=False)}\n" for key, value in properties.items()]
    return "".join(lines).encode("ascii")


def _escape(text: str, *, blanks: bool) -> str:
    """Escape a text for a properties file.

    Args:
        text: A key or a value.
        blanks: Escape all blanks, as in a key, where one ends it; otherwise only the first.
    """
    text.encode()  # raises UnicodeEncodeError, a ValueError, on surrogates
    return "".join(
        "\\ " if character == " " and (blanks or position == 0) else _ESCAPES.get(character) or _ascii(character)
        for position, character in enumerate(text)
    )


def _ascii(character: str) -> str:
    """Return a character as it is if it is printable ASCII, else as UTF-16 escapes: the file is read as Latin-1."""
    if character >= " " and ord(character) < _FIRST_UNICODE_ESCAPE:
        return character
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
