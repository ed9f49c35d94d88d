"""`newsbert deploy`."""

import dataclasses
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from newsbert.cli._completion import models
from newsbert.cli._options import Debug, ImageServer, Json, TrackingUri, setting
from newsbert.cli._output import Output
from newsbert.core import config
from newsbert.core.settings import ImageSettings, ServeSettings

if TYPE_CHECKING:
    from newsbert.deployment.target import DeploymentStatus

EXAMPLES = """
Examples:

    newsbert deploy BertModel/2 --to dev

    newsbert deploy BertModel@dev --to production
"""

To = Annotated[str, typer.Option(metavar="ENVIRONMENT", help="A table [environments.NAME] of newsbert.toml.")]


def deploy(
    model: Annotated[str, typer.Argument(help="BertModel/2, BertModel@champion or an image.", autocompletion=models)],
    to: To,
    server: ImageServer = None,
    repository: Annotated[str | None, setting(ImageSettings, "repository", metavar="PREFIX")] = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Deploy a model's image to an environment without downtime.

    No request is lost. The new model must reproduce its golden texts, or the previous model stays. The previous model
    remains for newsbert rollback. The version gets the environment's name as an alias. An environment is a Docker host,
    a Kubernetes cluster or Cloud Run.
    """
    screen = Output(as_json)
    images = config.resolve(ImageSettings, server=server, repository=repository)
    serving = config.resolve(ServeSettings, server=server)
    from newsbert.deployment import deploy as deploying

    target = deploying.environment(to, tracking_uri, screen.log)
    release = deploying.release(model, target, images, tracking_uri)
    render(screen, deploying.deploy(release, target, serving, tracking_uri, screen.log))


def render(screen: Output, deployed: "DeploymentStatus") -> None:
    """Print the deployed model, its environment and its URL."""
    if screen.as_json:
        screen.document(dataclasses.asdict(deployed))
        return
    if deployed.verification:
        screen.log(f"verified: {deployed.verification}")
    screen.result(f"{deployed.model} answers in {deployed.environment} on {deployed.url}")
    if deployed.previous:
        screen.result(f"  previous  {deployed.previous}")
        screen.next_command(f"newsbert rollback --to {deployed.environment}")
    screen.next_command(f"newsbert predict --url {shlex.quote(deployed.url)} 'Stocks fall as oil rises'")
