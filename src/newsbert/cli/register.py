"""`newsbert register`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from newsbert.cli._completion import runs
from newsbert.cli._options import Debug, Experiment, Json, ModelName, TrackingUri
from newsbert.cli._output import Output
from newsbert.core import config
from newsbert.errors import UsageError

EXAMPLES = """
Examples:

    newsbert register --model-name BertModel

    newsbert register RUN_ID --model-name BertModel --alias champion

    newsbert register bundles/RUN_ID --model-name BertModel

    newsbert register RUN_ID --model-name BertModel --sign KEY.pem
"""


def register(
    run: Annotated[
        str | None,
        typer.Argument(
            help="Run id, its beginning, runs:/RUN_ID/model, or a bundle's directory.",
            show_default="the latest finished run",
            autocompletion=runs,
        ),
    ] = None,
    model_name: ModelName = None,
    alias: Annotated[str | None, typer.Option(help="Alias to point at the version, such as champion.")] = None,
    sign: Annotated[
        Path | None,
        typer.Option(
            help="Sign the model with this private key; its passphrase is in NEWSBERT_SIGNING_PASSPHRASE.",
            metavar="KEY",
        ),
    ] = None,
    experiment: Experiment = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Register a training run's model as a version in MLflow.

    A run that is a version of that model already is not registered twice. A bundle that could not be logged, because
    the tracking server was gone when its training ended, is logged first. A signed model is loaded where trusted_keys
    in newsbert.toml names the public key.
    """
    screen = Output(as_json)
    name = config.model_name(model_name)
    if name is None:
        raise UsageError("no model name", "newsbert register --model-name BertModel")
    from newsbert.api import models

    version = models.register(run, name, alias, sign=sign, tracking_uri=tracking_uri, experiment=experiment)
    if screen.as_json:
        screen.document(
            {
                "model": str(version),
                "run_id": version.run_id,
                "created": version.created,
                "alias": version.alias,
                "choice": version.choice,
                "signed_by": version.signed_by,
            }
        )
        return
    if version.choice is not None:
        screen.note(f"the latest finished run was taken: {version.choice}")
    if version.signed_by is not None:
        screen.log(f"signed with the key whose public part has the SHA-256 {version.signed_by}")
    if not version.created:
        screen.note(f"run {version.run_id} was registered before")
    screen.result(str(version))
    screen.next_command(shlex.join(["newsbert", "serve", "locally", str(version)]))
