"""`newsbert export dashboard` and `newsbert export openapi`."""

from newsbert.cli._options import Debug, Json, Server
from newsbert.cli._output import Output
from newsbert.core import config
from newsbert.core.settings import ServeSettings

DASHBOARD_EXAMPLES = """
Examples:

    newsbert export dashboard > newsbert.json
"""


OPENAPI_EXAMPLES = """
Examples:

    newsbert export openapi > openapi.json

    newsbert export openapi --server native > openapi.json
"""


def dashboard(as_json: Json = False, debug: Debug = False) -> None:
    """Print a Grafana dashboard of a server's metrics.

    It is JSON with or without --json.
    """
    from importlib import resources

    Output(as_json).result(
        (resources.files("newsbert") / "serving/assets/grafana.json").read_text(encoding="utf-8").rstrip()
    )


def openapi(server: Server = None, as_json: Json = False, debug: Debug = False) -> None:
    """Print the OpenAPI description of a served model.

    It has the requests, answers and limits, and is JSON with or without --json.
    """
    import json

    from newsbert.serving import openapi as descriptions

    settings = config.resolve(ServeSettings, server=server)
    Output(as_json).result(json.dumps(descriptions.read_description(settings.server), indent=1, ensure_ascii=False))
