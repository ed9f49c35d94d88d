"""`newsbert rollback`."""

from newsbert.cli._options import Debug, Json, TrackingUri
from newsbert.cli._output import Output
from newsbert.cli.deploy import To, render

EXAMPLES = """
Examples:

    newsbert rollback --to production
"""


def rollback(to: To, tracking_uri: TrackingUri = None, as_json: Json = False, debug: Debug = False) -> None:
    """Return an environment to its previous model.

    Run it again to undo.
    """
    screen = Output(as_json)
    from newsbert.deployment import deploy

    render(screen, deploy.roll_back(deploy.environment(to, tracking_uri, screen.log), tracking_uri, screen.log))
