"""Options and output of the commands of `newsbert export` that print manifests."""

from typing import Annotated, Any

import typer

from newsbert.cli._completion import models
from newsbert.cli._output import Output

PushedModel = Annotated[
    str | None,
    typer.Argument(help="A version whose image was pushed: BertModel/2, BertModel@champion.", autocompletion=models),
]
Image = Annotated[
    str | None, typer.Option(metavar="REFERENCE", help="Its image, if not the one that build-image pushed.")
]
ObjectName = Annotated[str | None, typer.Option(help="Name of the objects.", show_default="made of the model's")]


def print_manifests(screen: Output, manifests: list[dict[str, Any]], document: dict[str, Any], image: str) -> None:
    """Print manifests as YAML, or a document as JSON; note an image that is named by a tag alone."""
    if screen.as_json:
        screen.document(document)
        return
    from newsbert.deployment import kubernetes_manifests

    screen.result(kubernetes_manifests.as_yaml(manifests))
    if "@" not in image:
        screen.note(f"{image} is a tag: what it means may change; one with a digest cannot")
