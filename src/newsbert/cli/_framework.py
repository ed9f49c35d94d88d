"""Typer commands and groups with readable help at any terminal width."""

import inspect
import re
import shutil
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import typer
from rich.markup import escape
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from newsbert.cli._output import Output

MIN_COLUMNS = 80
"""Terminal width below which help is plain text, one option after another: boxes would truncate option names."""

Function = TypeVar("Function", bound=Callable[..., Any])

_escaped_params = weakref.WeakSet[Any]()


def _clean_params(params: list[Any]) -> list[Any]:
    """Remove the type beside flags, and escape brackets in help texts.

    `--json <bool>` would read as if the flag took a value.
    """
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
        if param not in _escaped_params:
            _escaped_params.add(param)
            param.help = escape(getattr(param, "help", None) or "")
    return params


def _use_plain_help_if_narrow(command: Any, ctx: Any) -> None:
    if shutil.get_terminal_size().columns < MIN_COLUMNS:
        command.rich_markup_mode = None
        for param in command.get_params(ctx):
            param.help = Text.from_markup(param.help or "").plain


class _Command(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return _clean_params(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _use_plain_help_if_narrow(self, ctx)
        super().format_help(ctx, formatter)


class Group(TyperGroup):
    """A group of commands with readable help at any terminal width."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _clean_params(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _use_plain_help_if_narrow(self, ctx)
        super().format_help(ctx, formatter)


class Commands(typer.Typer):
    """A `typer.Typer` whose commands and groups show readable help at any terminal width."""

    def __init__(self, cls: type[Group] = Group, **settings: Any) -> None:
        super().__init__(cls=cls, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Function], Function]:
        """Add a command whose help is the function's docstring, rewrapped to the width of the terminal."""

        def add(function: Function) -> Function:
            text = escape(re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.getdoc(function) or ""))
            return super(Commands, self).command(name, cls=_Command, help=text, **settings)(function)

        return add


def group(help_text: str) -> Commands:
    """Return a group of commands that prints its help if no command follows, and succeeds, as those of docker do."""
    commands = Commands(help=help_text, invoke_without_command=True)

    @commands.callback()
    def show_help(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            Output().help(context)

    return commands
