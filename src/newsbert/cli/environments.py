"""`newsbert environments`."""

import dataclasses
from typing import TYPE_CHECKING

import typer

from newsbert.cli._options import Debug, Json, TrackingUri
from newsbert.cli._output import Output
from newsbert.core import config, config_file
from newsbert.errors import NewsbertError

if TYPE_CHECKING:
    from newsbert.deployment.target import DeploymentStatus

EXAMPLES = """
Examples:

    newsbert environments

    newsbert environments --json
"""


def environments(tracking_uri: TrackingUri = None, as_json: Json = False, debug: Debug = False) -> None:
    """List the environments and the model that answers in each.

    The environments are tables of newsbert.toml. The exit code is 1 if one cannot be reached.
    """
    screen = Output(as_json)
    from newsbert.deployment import deploy

    statuses: dict[str, DeploymentStatus | NewsbertError | None] = {}
    for name in config.environments():
        try:
            statuses[name] = deploy.environment(name, tracking_uri, screen.log).deployed()
        except NewsbertError as error:
            statuses[name] = error
    if screen.as_json:
        screen.document({"environments": {name: _build_document(status) for name, status in statuses.items()}})
    else:
        screen.table(
            ("environment", "model", "url", "previous"), (_build_row(*entry) for entry in statuses.items()), words=4
        )
        if not statuses:
            screen.note(f"there is no [environments.NAME] in {config_file.CONFIG_FILE}")
    if any(isinstance(status, NewsbertError) for status in statuses.values()):
        raise typer.Exit(1)


def _build_document(status: "DeploymentStatus | NewsbertError | None") -> dict[str, object] | None:
    if isinstance(status, NewsbertError):
        return {"error": status.document()}
    return None if status is None else dataclasses.asdict(status)


def _build_row(name: str, status: "DeploymentStatus | NewsbertError | None") -> tuple[str, str, str, str]:
    if isinstance(status, NewsbertError):
        return name, f"? {status.message}", "", ""
    return (name, "", "", "") if status is None else (name, status.model, status.url, status.previous or "")
