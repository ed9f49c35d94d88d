"""`newsbert export archive`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from newsbert.cli._options import Debug, Json, Model, TrackingUri, setting
from newsbert.cli._output import Output, size
from newsbert.core import config
from newsbert.core.settings import ServeSettings

EXAMPLES = """
Examples:

    newsbert export archive BertModel/2 --output-dir store

    newsbert export archive BertModel@champion --workers 2 --batch-size 16

    newsbert export archive bundles/my-model --name BertModel/2

    newsbert export archive BertModel/2 --for-plugin --output-dir models
"""


def archive(
    model: Model = None,
    output_dir: Annotated[
        Path, typer.Option("--output-dir", "-o", metavar="DIR", help="Directory to write news_classification.mar to.")
    ] = Path(),
    name: Annotated[
        str | None, typer.Option(help="What the answers say of the model.", show_default="the registry's name of it")
    ] = None,
    for_plugin: Annotated[
        bool,
        typer.Option(
            "--for-plugin",
            help="Write news_classification/, an MLflow model with a model.pth, which `mlflow deployments create -t "
            "torchserve` packs.",
        ),
    ] = False,
    runtime: Annotated[str | None, setting(ServeSettings, "runtime", metavar="NAME")] = None,
    review_threshold: Annotated[float | None, setting(ServeSettings, "review_threshold", metavar="SCORE")] = None,
    cascade: Annotated[str | None, setting(ServeSettings, "cascade", metavar="on|off|auto")] = None,
    workers: Annotated[int | None, setting(ServeSettings, "workers")] = None,
    batch_size: Annotated[int | None, setting(ServeSettings, "batch_size")] = None,
    batch_delay_ms: Annotated[int | None, setting(ServeSettings, "batch_delay_ms")] = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a model's TorchServe archive (.mar).

    The same model and settings give the same bytes.
    """
    screen = Output(as_json)
    settings = config.resolve(
        ServeSettings,
        runtime=runtime,
        review_threshold=review_threshold,
        cascade=cascade,
        workers=workers,
        batch_size=batch_size,
        batch_delay_ms=batch_delay_ms,
    )
    from newsbert.api import models
    from newsbert.bundle import bundle

    if for_plugin:
        model_name, directory = models.write_for_plugin(
            model, output_dir.expanduser(), settings, tracking_uri=tracking_uri
        )
        if screen.as_json:
            screen.document({"model": model_name, "directory": str(directory)})
            return
        screen.result(str(directory))
        screen.next_command(shlex.join(models.plugin_command(directory)))
        return
    model_name, file = models.write_archive(
        model, output_dir.expanduser(), settings, name=name, tracking_uri=tracking_uri
    )
    size_bytes, sha256 = file.stat().st_size, bundle.sha256_of(file)
    if screen.as_json:
        screen.document({"model": model_name, "archive": str(file), "size_bytes": size_bytes, "sha256": sha256})
        return
    screen.result(str(file))
    screen.log(f"{model_name}, {size(size_bytes)}, SHA-256 {sha256}")
    screen.next_command(shlex.join(["newsbert", "serve", "locally", str(file)]))
