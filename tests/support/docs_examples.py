"""The commands in README and docs, as a reader would type them."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "infra").glob("*/README.md"))]
_BLOCK = re.compile(r"^```(sh|console)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def of(page: Path) -> Iterator[str]:
    """Every line of a page's blocks of commands, and of its transcripts what follows a `$`."""
    for kind, block in _BLOCK.findall(page.read_text(encoding="utf-8")):
        for line in re.sub(r"\\\n *", "", block).splitlines():
            if kind == "console" and not line.startswith("$ "):
                continue
            yield line.removeprefix("$ ")
