"""TorchServe's queue of requests for a model's workers."""

import urllib.parse
from pathlib import Path

import httpx2

from newsbert.core import loopback
from newsbert.errors import ServingError
from newsbert.serving import auth

_TIMEOUT_S = 1.0
_TOKEN_EXPIRED = {400, 401, 403}


def count_pending(directory: Path, model_name: str) -> int | None:
    """Count the requests that wait for a model's workers.

    Args:
        directory: The server's directory, with its management socket and, if it requires tokens, its key file.
        model_name: TorchServe's name of the model.

    Returns:
        The count; `None` if the server does not answer.
    """
    key_file = directory / auth.KEY_FILE
    try:
        with loopback.make_client(f"unix:{directory / auth.MANAGEMENT_SOCKET}") as http:
            if not key_file.exists():
                response = _describe_model(http, model_name, {})
            else:
                response = _describe_model(http, model_name, dict([auth.header(auth.read(key_file).management)]))
                if response.status_code in _TOKEN_EXPIRED:
                    token = auth.rotate(key_file, "management").management
                    response = _describe_model(http, model_name, dict([auth.header(token)]))
        (description,) = response.raise_for_status().json()
        return int(description["jobQueueStatus"]["pendingRequests"])
    except (httpx2.HTTPError, ValueError, LookupError, TypeError, ServingError):
        return None


def _describe_model(http: httpx2.Client, model_name: str, headers: dict[str, str]) -> httpx2.Response:
    return http.get(f"/models/{urllib.parse.quote(model_name, safe='')}", headers=headers, timeout=_TIMEOUT_S)
