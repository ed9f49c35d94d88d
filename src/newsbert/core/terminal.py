"""What a terminal obeys instead of showing it: escapes, carriage returns, marks that turn text around."""

import re

_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but for tab and newline, DEL, C1
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # line and paragraph separators, bidirectional controls
    "\ud800-\udfff]"  # surrogates: bytes that are no text, which no encoding can write
)


def show_controls(text: str) -> str:
    r"""Write every character that a terminal obeys as `\u001b`, but for tabs and newlines.

    JSON stays the same JSON.
    """
    return _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", text.replace("\r\n", "\n"))


def has_controls(text: str) -> bool:
    """Return whether a name holds what a terminal obeys, a tab or a newline."""
    return _OBEYED.search(text) is not None or "\t" in text or "\n" in text
