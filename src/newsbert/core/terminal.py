"""Characters that a terminal executes instead of showing: escapes, carriage returns, bidirectional controls."""

import re

_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 except tab and newline, DEL, C1
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # line and paragraph separators, bidirectional controls
    "\ud800-\udfff]"  # surrogates: bytes that are not text, which no encoding can write
)


def show_controls(text: str) -> str:
    r"""Replace every control character by its escape, such as `\u001b`, except tabs and newlines.

    JSON text stays equivalent.
    """
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text.replace("\r\n", "\n"))


def has_controls(text: str) -> bool:
    """Return whether a name contains a control character, a tab or a newline."""
    return _CONTROLS.search(text) is not None or "\t" in text or "\n" in text
