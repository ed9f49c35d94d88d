"""Writer of Java's properties files (`java.util.Properties`)."""

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
    """Return a file from which `Properties.load` reads exactly these keys and values, with any characters.

    Args:
        properties: Values by key; other types than strings are converted with `str`.

    Raises:
        ValueError: If a text has half a surrogate pair, as in a file name that is not UTF-8.
    """
    lines = [f"{_escape(key, blanks=True)}={_escape(str(value), blanks=False)}\n" for key, value in properties.items()]
    return "".join(lines).encode("ascii")


def _escape(text: str, *, blanks: bool) -> str:
    """Escape a text for a properties file.

    Args:
        text: A key or a value.
        blanks: Escape all blanks, since a blank would end a key; otherwise only a leading one.
    """
    text.encode()  # raises UnicodeEncodeError, a ValueError, on surrogates
    return "".join(
        "\\ "
        if character == " " and (blanks or position == 0)
        else _ESCAPES.get(character) or _escape_non_ascii(character)
        for position, character in enumerate(text)
    )


def _escape_non_ascii(character: str) -> str:
    """Return printable ASCII unchanged, other characters as UTF-16 escapes: Java reads the file as Latin-1."""
    if character >= " " and ord(character) < _FIRST_UNICODE_ESCAPE:
        return character
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
