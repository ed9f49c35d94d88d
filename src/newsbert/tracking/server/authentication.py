"""Who asks a tracking server, and what it refuses to every account; MLflow's server calls `authenticate`."""

import json
import re
from typing import TYPE_CHECKING, Any

from flask import make_response, request

if TYPE_CHECKING:
    from flask import Response
    from werkzeug.datastructures import Authorization

_KEY = "newsbert.authorization"
_CLOSED = re.compile(r"/(mlflow/(assistant|demo|webhooks)|gateway|jobs)(/|$)")
"""MLflow's assistant runs programs on the server's machine, its gateway and webhooks call addresses that an account
chooses, and its demonstration fills the database."""

_SOURCES = ("models:/", "runs:/", "mlflow-artifacts:/")


def authenticate() -> "Authorization | Response":
    """Return the account that asks, or the refusal.

    MLflow asks this several times a request, and computes the password's hash each time: here once.
    """
    if _KEY not in request.environ:
        request.environ[_KEY] = _authenticate()
    found: Authorization | Response = request.environ[_KEY]
    return found


def _authenticate() -> "Authorization | Response":
    from mlflow.server.auth import authenticate_request_basic_auth
    from werkzeug.datastructures import Authorization

    found = authenticate_request_basic_auth()
    reason = _refused() if isinstance(found, Authorization) else None
    return found if reason is None else make_response(reason, 403)


def _refused() -> str | None:
    """Return why no account may send this request: it would have the server read or write where it was not told to."""
    if _CLOSED.search(request.path):
        return "newsbert's tracking server does not have this part of MLflow"
    if request.path.endswith("/mlflow/experiments/create") and _field("artifactlocation"):
        return "an account cannot choose where artifacts are: leave artifact_location out"
    if request.path.endswith("/mlflow/model-versions/create"):
        source = _field("source")
        if source is not None and not str(source).startswith(_SOURCES):
            return f"a version's source has to begin with one of {', '.join(_SOURCES)}"
    return None


def _field(name: str) -> Any:
    """Return a field of the request's document, by any of the spellings that MLflow takes."""
    document = request.get_json(force=True, silent=True)
    if isinstance(document, str):  # MLflow reads such a document, too
        try:
            document = json.loads(document)
        except ValueError:
            return None
    if not isinstance(document, dict):
        return None
    return next((value for key, value in document.items() if key.replace("_", "").lower() == name), None)
