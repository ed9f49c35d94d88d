"""`newsbert config`."""

from typing import Annotated

import typer

from newsbert.cli._options import Debug, Json
from newsbert.cli._output import Output
from newsbert.core import config as configuration

EXAMPLES = """
Examples:

    newsbert config

    newsbert config --set
"""


def config(
    only_set: Annotated[bool, typer.Option("--set", help="Leave out the defaults.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show the settings in effect and where each comes from.

    Passwords in addresses are left out.
    """
    screen = Output(as_json)
    settings = [setting for setting in configuration.resolved() if setting.origin is not None or not only_set]
    if screen.as_json:
        tables: dict[str, dict[str, object]] = {}
        for setting in settings:
            tables.setdefault(setting.table, {})[setting.name] = {"value": setting.value, "origin": setting.origin}
        screen.document({"settings": tables})
        return
    rows = [
        (f"{setting.table}.{setting.name}".lstrip("."), _format_value(setting.value), setting.origin or "default")
        for setting in settings
    ]
    screen.table(("setting", "value", "from"), rows, words=3)
    if not settings:
        screen.note("all settings are the defaults")


def _format_value(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
