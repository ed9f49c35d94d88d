"""The commands in README and docs, as a reader would type them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "infra").glob("*/README.md"))]
_BLOCK = re.compile(r"^```(sh|console)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Example:
    """A line of a block.

    Attributes:
        page: Its file.
        line: What is typed; what it goes on with after a backslash is part of it.
    """

    page: Path
    line: str


def of(page: Path) -> Iterator[Example]:
    """Every line of a page's blocks of commands, and of its transcripts what follows a `$`."""
    for kind, block in _BLOCK.findall(page.read_text(encoding="utf-8")):
        for line in re.sub(r"\\\n *", "", block).splitlines():
            if kind == "console" and not line.startswith("$ "):
                continue
            yield Example(page, line.removeprefix("$ "))
