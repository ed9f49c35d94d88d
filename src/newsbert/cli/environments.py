"""`newsbert environments`."""

import dataclasses
from typing import TYPE_CHECKING

import typer

from newsbert.cli._options import Debug, Json, TrackingUri
from newsbert.cli._output import Output
from newsbert.core import config
from newsbert.errors import NewsbertError

if TYPE_CHECKING:
    from newsbert.deployment.target import DeploymentStatus

EXAMPLES = """
Examples:

    newsbert environments

    newsbert environments --json
"""


def environments(tracking_uri: TrackingUri = None, as_json: Json = False, debug: Debug = False) -> None:
    """List the environments of newsbert.toml, and what answers there; exit with 1 if one cannot be asked."""
    screen = Output(as_json)
    from newsbert.deployment import deploy

    found: dict[str, DeploymentStatus | NewsbertError | None] = {}
    for name in config.environments():
        try:
            found[name] = deploy.environment(name, tracking_uri, screen.log).deployed()
        except NewsbertError as error:
            found[name] = error
    if screen.as_json:
        screen.document({"environments": {name: _document(each) for name, each in found.items()}})
    else:
        screen.table(("environment", "model", "url", "before"), (_row(*each) for each in found.items()), words=4)
        if not found:
            screen.note(f"there is no [environments.NAME] in {config.CONFIG_FILE}")
    if any(isinstance(each, NewsbertError) for each in found.values()):
        raise typer.Exit(1)


def _document(each: "DeploymentStatus | NewsbertError | None") -> dict[str, object] | None:
    if isinstance(each, NewsbertError):
        return {"error": each.document()}
    return None if each is None else dataclasses.asdict(each)


def _row(name: str, each: "DeploymentStatus | NewsbertError | None") -> tuple[str, str, str, str]:
    if isinstance(each, NewsbertError):
        return name, f"? {each.message}", "", ""
    return (name, "", "", "") if each is None else (name, each.model, each.url, each.before or "")
