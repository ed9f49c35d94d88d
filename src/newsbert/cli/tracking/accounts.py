"""`newsbert tracking user`, `grant` and `revoke`."""

from typing import Annotated

import typer

from newsbert.cli._options import Debug, Json
from newsbert.cli._output import Output
from newsbert.cli.tracking._options import Directory, get_state

USER_EXAMPLES = """
Examples:

    newsbert tracking user alice

    newsbert tracking user admin
"""
GRANT_EXAMPLES = """
Examples:

    newsbert tracking grant bob --experiment news --model BertModel

    newsbert tracking grant bob --model BertModel --permission manage
"""
REVOKE_EXAMPLES = """
Examples:

    newsbert tracking revoke bob --experiment news --model BertModel
"""

Experiment = Annotated[str | None, typer.Option(metavar="NAME", help="An experiment; '*' for all.")]
Model = Annotated[str | None, typer.Option(metavar="NAME", help="A registered model; '*' for all.")]


def user(
    name: Annotated[str, typer.Argument(help="Its name.")],
    admin: Annotated[bool, typer.Option("--admin", help="It may do everything, accounts included.")] = False,
    directory: Directory = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Create an account, or give one a new password.

    The password is printed once. An account may make experiments and models, and do everything with these. What it may
    do with those of others is --default-permission of newsbert tracking up, and newsbert tracking grant.
    """
    screen = Output(as_json)
    from newsbert.tracking.server import accounts

    password, created = accounts.renew(get_state(directory), name, admin=admin)
    if screen.as_json:
        screen.document({"user": name, "password": password, "created": created})
        return
    if not created:
        screen.note(f"user {name} already existed: the previous password is revoked")
    screen.result(f"MLFLOW_TRACKING_USERNAME={name}")
    screen.result(f"MLFLOW_TRACKING_PASSWORD={password}")


def grant(
    name: Annotated[str, typer.Argument(help="The account.")],
    experiment: Experiment = None,
    model: Model = None,
    permission: Annotated[str, typer.Option(help="read, edit (log and register) or manage (delete too).")] = "edit",
    directory: Directory = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Give an account access to an experiment or a model.

    Whoever makes an experiment or a model may do everything with it, without a grant. It holds from the next request.
    """
    screen = Output(as_json)
    from newsbert.tracking.server import accounts

    accounts.grant(get_state(directory), name, experiment=experiment, model=model, permission=permission)
    if screen.as_json:
        screen.document({"user": name, "experiment": experiment, "model": model, "permission": permission})
        return
    screen.result(f"{name} has the permission {permission} for {_format_resources(experiment, model)}")


def revoke(
    name: Annotated[str, typer.Argument(help="The account.")],
    experiment: Experiment = None,
    model: Model = None,
    directory: Directory = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Remove access that newsbert tracking grant gave."""
    screen = Output(as_json)
    from newsbert.tracking.server import accounts

    accounts.revoke(get_state(directory), name, experiment=experiment, model=model)
    if screen.as_json:
        screen.document({"user": name, "experiment": experiment, "model": model})
        return
    screen.result(f"{name} has the default permission for {_format_resources(experiment, model)}")


def _format_resources(experiment: str | None, model: str | None) -> str:
    resources = {"experiment": experiment, "model": model}
    return " and ".join(f"{kind} {name}" for kind, name in resources.items() if name is not None)
