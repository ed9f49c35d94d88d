"""Other words for commands and options lead to commands and options that there are."""

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from newsbert.cli import _corrections
from newsbert.cli.app import app

ROOT: Any = typer.main.get_command(app)


def _find(words: list[str]) -> tuple[Any, list[str]]:
    """Return the command at the beginning of a line, and the words behind it."""
    command = ROOT
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    return command, words


def _leaves(command: Any) -> Iterator[Any]:
    if hasattr(command, "commands"):
        for member in command.commands.values():
            yield from _leaves(member)
    else:
        yield command


@pytest.mark.parametrize("group", _corrections._COMMANDS)
def test_other_commands_lead_to_real_ones(group: str) -> None:
    command, rest = _find(shlex.split(group)[1:])
    assert not rest
    for word, line in _corrections._COMMANDS[group].items():
        assert word not in getattr(command, "commands", {})
        program, *words = shlex.split(line)
        if program == "newsbert":
            meant, options = _find(words)
            assert len(options) < len(words) or options == ["--version"], line
            assert {*options} <= {flag for param in meant.params for flag in param.opts}, line


def test_other_options_lead_to_real_ones() -> None:
    commands = list(_leaves(ROOT))
    options = {flag for command in commands for param in command.params for flag in param.opts if flag[0] == "-"}
    arguments = {param.name for command in commands for param in command.params if param.opts[0][0] != "-"}
    for old, names in _corrections._OPTIONS.items():
        assert old not in names or len(names) > 1
        assert {*names} <= options | arguments, old
