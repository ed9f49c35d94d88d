"""Write docs/reference/cli.md from the commands themselves: `make docs`. A test holds the two together."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from newsbert.cli.app import app

FILE = Path(__file__).parents[1] / "reference" / "cli.md"
_HEAD = """\
# CLI reference

Made from the commands themselves by `make docs`. Options that most have, `--json`, `--debug` and `--help`, stand here
only: `--json` prints one JSON document on standard output, errors included; `--debug` adds tracebacks to errors. Exit
codes: 0 done, 1 it could not be done, 2 the call or the configuration is wrong, 130 interrupted.
"""
_EVERYWHERE = {"--json", "--debug", "--help"}


def pages() -> dict[Path, str]:
    """Return the file and its content."""
    return {FILE: _render()}


def _render() -> str:
    return "\n".join([_HEAD, *_sections(typer.main.get_command(app), ("newsbert",))])


def _sections(command: Any, path: tuple[str, ...]) -> Iterator[str]:
    if hasattr(command, "commands"):
        for name, each in command.commands.items():
            yield from _sections(each, (*path, name))
        return
    context = command.context_class(command, info_name=" ".join(path))
    yield f"## {' '.join(path)}\n"
    yield _plain(command.help) + "\n"
    yield f"    {' '.join([*path, *command.collect_usage_pieces(context)])}\n"
    records = filter(None, (each.get_help_record(context) for each in command.params))
    rows = [(name, text) for name, text in records if not _EVERYWHERE & set(re.split(r"[ ,/]+", name))]
    if rows:
        yield "| | |\n|---|---|"
        yield from (f"| `{name}` | {_plain(text).replace('|', chr(92) + '|')} |" for name, text in rows)
        yield ""
    examples = [line.strip() for line in command.epilog.partition("Examples:")[2].splitlines() if line.strip()]
    yield "```sh\n" + "\n".join(examples) + "\n```\n"


def _plain(text: str | None) -> str:
    """A text in one line, without rich's markup and backspaces of Click's."""
    return " ".join(re.sub(r"\x08|\[/?(?:dim|bold|red|yellow)\]", "", text or "").replace("\\[", "[").split())


if __name__ == "__main__":
    FILE.write_text(_render(), encoding="utf-8")
