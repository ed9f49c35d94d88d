"""`newsbert export model-repository`."""

from pathlib import Path
from typing import Annotated

import typer

from newsbert.cli._options import Debug, Json, Model, TrackingUri, setting
from newsbert.cli._output import Output
from newsbert.core import config
from newsbert.core.settings import ServeSettings
from newsbert.errors import UsageError

EXAMPLES = """
Examples:

    newsbert export model-repository BertModel/2 --for mlserver

    newsbert export model-repository BertModel@champion --for triton --output-dir triton
"""


def model_repository(
    model: Model = None,
    server: Annotated[str, typer.Option("--for", metavar="mlserver|triton", help="Server that reads it.")] = "mlserver",
    output_dir: Annotated[
        Path, typer.Option("--output-dir", "-o", metavar="DIR", help="Repository to write news_classification/ to.")
    ] = Path("model_repository"),
    name: Annotated[str | None, setting(ServeSettings, "name", metavar="NAME")] = None,
    runtime: Annotated[str | None, setting(ServeSettings, "runtime", metavar="NAME")] = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a model repository for MLServer or Triton.

    Either server needs newsbert in its Python environment, with what newsbert itself requires.
    """
    screen = Output(as_json)
    settings = config.resolve(ServeSettings, name=name, runtime=runtime)
    from newsbert.bundle.bundle import Bundle
    from newsbert.serving.repository import writing
    from newsbert.tracking import locate

    if server not in writing.SERVERS:
        raise UsageError(f"--for {server!r} cannot be", f"give one of {', '.join(writing.SERVERS)}")
    located = locate.locate(model, tracking_uri=tracking_uri)
    directory = writing.write(
        Bundle.read(located.path),
        settings.name or located.name,
        located.version,
        server,
        output_dir.expanduser(),
        settings.runtime,
    )
    if screen.as_json:
        screen.document({"model": settings.name or located.name, "directory": str(directory), "server": server})
        return
    screen.result(str(directory))
