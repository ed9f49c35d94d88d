"""Options of the commands of `newsbert export` that print manifests."""

from typing import Annotated

import typer

from newsbert.cli._completion import models

PushedModel = Annotated[
    str | None,
    typer.Argument(help="A version whose image was pushed: BertModel/2, BertModel@champion.", autocompletion=models),
]
Image = Annotated[
    str | None, typer.Option(metavar="REFERENCE", help="Its image, if not the one that build-image pushed.")
]
ObjectName = Annotated[str | None, typer.Option(help="Name of the objects.", show_default="made of the model's")]
