"""TorchServe's queue of requests for a model's workers."""

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

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
        if not key_file.exists():
            return _request_count(directory, model_name, {})
        try:
            return _request_count(directory, model_name, dict([auth.header(auth.read(key_file).management)]))
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in _TOKEN_EXPIRED:
                return None
            return _request_count(
                directory, model_name, dict([auth.header(auth.rotate(key_file, "management").management)])
            )
    except (OSError, ValueError, LookupError, TypeError, http.client.HTTPException, ServingError):
        return None


def _request_count(directory: Path, model_name: str, headers: dict[str, str]) -> int:
    url = f"http://localhost/models/{urllib.parse.quote(model_name, safe='')}"
    request = urllib.request.Request(url, headers=headers)
    socket = str(directory / auth.MANAGEMENT_SOCKET)
    with loopback.unix_urlopen(socket, request, _TIMEOUT_S) as response:
        (description,) = json.load(response)
    return int(description["jobQueueStatus"]["pendingRequests"])
