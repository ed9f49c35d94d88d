"""What messages name can be typed: the commands and options are there. `integration/test_hints.py` follows hints."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import newsbert
from newsbert.cli.app import app

SOURCE = Path(newsbert.__file__).parent
COMMAND: Any = typer.main.get_command(app)  # made once: it takes as long as the test
_COMMAND = re.compile(r"(?<!-t )\bnewsbert ([a-z-]+(?![\w/])[^;`\n]*)")
PROSE = {
    "bundle", "commands", "does", "has", "in", "is", "listens", "model", "need", "needs", "reads", "was", "writes",
}  # fmt: skip
"""Words behind the name in a sentence of which it is the subject."""


def _list_strings(tree: ast.Module) -> Iterator[str]:
    """Yield all strings but docstrings, with `X` for what is put into them."""
    left_out = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
            left_out |= set(map(id, node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in left_out:
            yield node.value


def _resolve(words: list[str]) -> tuple[Any, list[str]]:
    """Return the command that words begin with, and the words behind it."""
    command = COMMAND
    while words and words[0].strip(",.:)") in getattr(command, "commands", {}):
        command = command.commands[words[0].strip(",.:)")]
        words = words[1:]
    return command, words


def test_commands_and_options_in_messages_exist() -> None:
    named = 0
    unknown: list[tuple[str, ...]] = []
    for file in sorted(SOURCE.rglob("*.py")):
        for text in _list_strings(ast.parse(file.read_text(encoding="utf-8"))):
            for match in _COMMAND.finditer(text):
                words = re.split(r", | or | \(", match[1])[0].split()
                if not words or words[0].strip(",.:)") in PROSE:
                    continue
                command, rest = _resolve(words)
                if len(rest) == len(words) and not words[0].startswith("-"):
                    unknown.append((file.name, match[0]))
                    continue
                named += 1
                options = {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)}
                for word in rest:
                    option = word.partition("=")[0].rstrip(",.:)'\"X")
                    if option.startswith("--") and option not in {*options, "--help"}:
                        unknown.append((file.name, match[0], option))
    assert named > 100
    assert unknown == []
