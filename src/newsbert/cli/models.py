"""`newsbert models`."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from newsbert.cli._options import Debug, Json, TrackingUri
from newsbert.cli._output import Output
from newsbert.core.identifiers import SHORT_RUN_ID_DIGITS

EXAMPLES = """
Examples:

    newsbert models

    newsbert models BertModel --json
"""


def models(
    name: Annotated[str | None, typer.Argument(help="A registered model.", show_default="all")] = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List registered models with their versions and aliases."""
    screen = Output(as_json)
    from newsbert.tracking import locate

    tracker = locate.connect(tracking_uri)
    versions = sorted(tracker.versions(name), key=lambda version: (version.name, -int(version.version)))
    aliases = {model: tracker.aliases(model) for model in {version.name for version in versions}}
    documents: list[dict[str, Any]] = [
        {
            "name": version.name,
            "version": str(version.version),
            "aliases": sorted(
                alias for alias, number in aliases[version.name].items() if number == str(version.version)
            ),
            "run_id": version.run_id or None,
            "created": datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        }
        for version in versions
    ]
    if screen.as_json:
        screen.document({"models": documents})
        return
    if not documents:
        screen.note(f"no registered models on {tracker.where}" if name is None else f"no registered model {name!r}")
        screen.next_command("newsbert register --model-name BertModel" if name is None else "newsbert models")
        return
    rows = [
        [
            f"{document['name']}/{document['version']}",
            ", ".join(document["aliases"]),
            str(document["run_id"] or "")[:SHORT_RUN_ID_DIGITS],
            str(document["created"])[:16].replace("T", " "),
        ]
        for document in documents
    ]
    screen.table(["version", "aliases", "run", "created (UTC)"], rows)
