"""Options of several commands, with help and defaults from their settings."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from newsbert.cli._completion import models
from newsbert.core import config
from newsbert.core.settings import ImageSettings, RaySettings, ServeSettings, TrackingSettings


def setting(
    section: type, name: str, *flags: str, metavar: str | None = None, completed: Callable[..., Any] | None = None
) -> Any:
    """Return the option of a setting; without the option, environment, file and default set the value."""
    default = config.default_of(section, name)
    default_text = f" [default: {default}]" if default else ""
    help_text = f"{config.help_of(section, name)}{default_text}"
    return typer.Option(*flags, help=help_text, show_default=False, metavar=metavar, autocompletion=completed)


_MODEL: dict[str, Any] = {
    "help": "BertModel/2, BertModel@champion, models:/…, a run id or a bundle's directory.",
    "show_default": "the version registered last",
    "autocompletion": models,
}
Model = Annotated[str | None, typer.Argument(**_MODEL)]
ModelOption = Annotated[str | None, typer.Option("--model", "-m", **_MODEL)]
TrackingUri = Annotated[str | None, setting(TrackingSettings, "tracking_uri", metavar="URI")]
Experiment = Annotated[str | None, setting(TrackingSettings, "experiment", metavar="NAME")]
RayWorkers = Annotated[int | None, setting(RaySettings, "workers", "--ray-workers", metavar="N")]
RayAddress = Annotated[str | None, setting(RaySettings, "address", "--ray-address", metavar="ADDRESS")]
ModelName = Annotated[str | None, typer.Option(help="Registered model, such as BertModel.", metavar="NAME")]
Server = Annotated[str | None, setting(ServeSettings, "server", metavar="torchserve|native")]
ImageServer = Annotated[str | None, setting(ImageSettings, "server", metavar="torchserve|native")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
