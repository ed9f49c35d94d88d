"""Write the packages and their order into docs/explanation/architecture.md: `make docs`. A test holds the two together.

They come from the packages' docstrings and from the import contract in pyproject.toml.
"""

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "architecture.md"
BEGIN, END = "<!-- begin: packages -->", "<!-- end: packages -->"
_WIDTH = 66


def main() -> None:
    """Write the page."""
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def render(page: str) -> str:
    """Return the page with the packages as they are."""
    layers = read_layers()
    rows = [f"| `{name}` | {read_docstring(name)} |" for layer in layers for name in layer]
    parts = ["```text", *draw(layers), "```", "", "| package | what it holds |", "|---|---|", *rows]
    return re.sub(f"{BEGIN}.*{END}", "\n".join((BEGIN, *parts, END)).replace("\\", r"\\"), page, flags=re.DOTALL)


def read_layers() -> list[list[str]]:
    """Return the names of the packages of each layer, the highest first."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (layers,) = (one["layers"] for one in project["tool"]["importlinter"]["contracts"] if one["id"] == "layers")
    return [[name.strip().removeprefix("newsbert.") for name in layer.split("|")] for layer in layers]


def read_docstring(name: str) -> str:
    """Return the first line of the docstring of a package or module."""
    path = ROOT / "src" / "newsbert" / name
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def draw(layers: list[list[str]]) -> list[str]:
    """Return the layers as lines of boxes, the highest first."""
    lines = []
    for number, layer in enumerate(layers):
        widths = [_WIDTH // len(layer) - 1] * len(layer)
        widths[-1] += _WIDTH - sum(widths) - len(layer) - 1
        left, middle, right = ("┌", "┬", "┐") if number == 0 else ("├", "┼", "┤")
        above = layers[number - 1] if number else layer
        middle = middle if len(layer) == len(above) else ("┬" if len(layer) > len(above) else "┴")
        most = widths if len(layer) >= len(above) else [_WIDTH // 2 - 1, _WIDTH - _WIDTH // 2 - 2]
        lines.append(left + middle.join("─" * width for width in most) + right)
        lines.append("│" + "│".join(name.center(width) for name, width in zip(layer, widths, strict=True)) + "│")
    lines.append("└" + "─" * (_WIDTH - 2) + "┘")
    return lines


if __name__ == "__main__":
    main()
