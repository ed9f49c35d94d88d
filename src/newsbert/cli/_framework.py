"""Groups of commands whose help reads well at any width."""

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

LEAST_COLUMNS = 80
"""In fewer, boxes of options would cut their names short: help is plain text then, one option after another."""

Function = TypeVar("Function", bound=Callable[..., Any])

_escaped = weakref.WeakSet[Any]()


def _plain(params: list[Any]) -> list[Any]:
    """Show no type beside a flag (`--json <bool>` reads as if it wanted a value), and brackets as they are."""
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
        if param not in _escaped:
            _escaped.add(param)
            param.help = escape(getattr(param, "help", None) or "")
    return params


def _plain_if_narrow(command: Any, ctx: Any) -> None:
    if shutil.get_terminal_size().columns < LEAST_COLUMNS:
        command.rich_markup_mode = None
        for each in command.get_params(ctx):
            each.help = Text.from_markup(each.help or "").plain


class _Command(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return _plain(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _plain_if_narrow(self, ctx)
        super().format_help(ctx, formatter)


class _Group(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return _plain(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _plain_if_narrow(self, ctx)
        super().format_help(ctx, formatter)


class Commands(typer.Typer):
    """A `typer.Typer` that makes such commands and groups."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=_Group, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Function], Function]:
        """Add a command; its help is the function's docstring, whose lines are as long as the terminal's."""

        def add(function: Function) -> Function:
            text = escape(re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.getdoc(function) or ""))
            return super(Commands, self).command(name, cls=_Command, help=text, **settings)(function)

        return add
