"""`newsbert rollback`."""

from newsbert.cli._options import Debug, Json, TrackingUri
from newsbert.cli._output import Output
from newsbert.cli.deploy import To, render

EXAMPLES = """
Examples:

    newsbert rollback --to production
"""


def rollback(to: To, tracking_uri: TrackingUri = None, as_json: Json = False, debug: Debug = False) -> None:
    """Have the model before answer in an environment again, as deploy does; once more brings the newer one back."""
    screen = Output(as_json)
    from newsbert.deployment import deploy

    render(screen, deploy.roll_back(deploy.environment(to, tracking_uri, screen.log), tracking_uri, screen.log))
