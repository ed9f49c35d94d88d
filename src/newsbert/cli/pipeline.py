"""`newsbert pipeline`."""

import dataclasses
from typing import Annotated

import typer

from newsbert.cli._completion import models
from newsbert.cli._options import Debug, ImageServer, Json, ModelName, TrackingUri, setting
from newsbert.cli._output import Output
from newsbert.cli.deploy import To
from newsbert.core import config
from newsbert.core.settings import ImageSettings, ServeSettings
from newsbert.errors import UsageError

EXAMPLES = """
Examples:

    newsbert pipeline --to dev

    newsbert pipeline BertModel/7 --to production
"""


def pipeline(
    to: To,
    model: Annotated[
        str | None,
        typer.Argument(
            help="BertModel/7 or BertModel@dev.", show_default="one that is trained now", autocompletion=models
        ),
    ] = None,
    model_name: ModelName = None,
    server: ImageServer = None,
    repository: Annotated[str | None, setting(ImageSettings, "repository", metavar="PREFIX")] = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train, register, build, push, deploy and test in one command.

    A step that is done is not repeated. Without MODEL, the trainer image is built, and trains as newsbert.toml says.
    The model is registered; its serving image is built, verified and pushed. Then the image is deployed and tested on
    the environment's acceptance rows. If its accuracy is too low, the environment is rolled back. A pipeline that was
    killed resumes.
    """
    screen = Output(as_json)
    name = config.model_name(model_name)
    if model is None and name is None:
        raise UsageError("no model name", f"newsbert pipeline --to {to} --model-name BertModel")
    images = config.resolve(ImageSettings, server=server, repository=repository)
    serving = config.resolve(ServeSettings, server=server)
    from newsbert.deployment.pipeline import Pipeline

    steps = Pipeline(to, images, serving, tracking_uri, screen.log, screen.raw_log)
    result = steps.train(str(name)) if model is None else steps.release(model)
    if screen.as_json:
        screen.document(dataclasses.asdict(result))
        return
    screen.result(f"{result.model} answers in {result.environment} on {result.url}")
    screen.result(f"  image     {result.image}")
    screen.result(f"  accepted  {result.accepted}")
    if result.previous:
        screen.result(f"  previous  {result.previous}")
        screen.next_command(f"newsbert rollback --to {result.environment}")
