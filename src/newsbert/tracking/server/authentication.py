"""Authentication of requests, and refusals for every account; MLflow's server calls `authenticate`."""

import json
import re
from typing import TYPE_CHECKING, Any

from flask import make_response, request

if TYPE_CHECKING:
    from flask import Response
    from werkzeug.datastructures import Authorization

_KEY = "newsbert.authorization"
_CLOSED_PATHS = re.compile(r"/(mlflow/(assistant|demo|webhooks)|gateway|jobs)(/|$)")
"""Paths that are closed to all accounts.

MLflow's assistant runs programs on the server's machine, its gateway and webhooks call addresses that an account
chooses, and its demonstration fills the database.
"""

_SOURCES = ("models:/", "runs:/", "mlflow-artifacts:/")


def authenticate() -> "Authorization | Response":
    """Return the account of a request, or the refusal.

    MLflow calls this several times per request. The password's hash is computed only the first time.
    """
    if _KEY not in request.environ:
        request.environ[_KEY] = _authenticate()
    result: Authorization | Response = request.environ[_KEY]
    return result


def _authenticate() -> "Authorization | Response":
    from mlflow.server.auth import authenticate_request_basic_auth
    from werkzeug.datastructures import Authorization

    result = authenticate_request_basic_auth()
    reason = _find_refusal() if isinstance(result, Authorization) else None
    return result if reason is None else make_response(reason, 403)


def _find_refusal() -> str | None:
    """Return the reason to refuse this request to any account: the server would access an unintended location."""
    if _CLOSED_PATHS.search(request.path):
        return "newsbert's tracking server does not have this part of MLflow"
    if request.path.endswith("/mlflow/experiments/create") and _get_field("artifactlocation"):
        return "an account cannot choose where artifacts are: leave artifact_location out"
    if request.path.endswith("/mlflow/model-versions/create"):
        source = _get_field("source")
        if source is not None and not str(source).startswith(_SOURCES):
            return f"a version's source has to begin with one of {', '.join(_SOURCES)}"
    return None


def _get_field(name: str) -> Any:
    """Return a field of the request's document, in any spelling that MLflow accepts."""
    document = request.get_json(force=True, silent=True)
    if isinstance(document, str):  # MLflow accepts such a document, too
        try:
            document = json.loads(document)
        except ValueError:
            return None
    if not isinstance(document, dict):
        return None
    return next((value for key, value in document.items() if key.replace("_", "").lower() == name), None)
