"""Health check of a container, which checks that a model answers: `python -m newsbert.serving.probe [PORT]`.

It imports only what it needs, to start quickly.
"""

import http.client
import json
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

from newsbert.core import environment, loopback
from newsbert.errors import NewsbertError, ServingError
from newsbert.serving import auth

PREDICTIONS = "/predictions/news_classification"
PORT = 8080
"""Port of the server in the image."""

TIMEOUT_S = 8
_TEXT = b"Is anybody there?"


def ask(url: str, key_file: Path | None, timeout_s: float) -> None:
    """Classify a text with the model of a server.

    Args:
        url: The server's base URL.
        key_file: The server's key file, if it requires tokens.
        timeout_s: Timeout.

    Raises:
        ServingError: If there is no answer, or it is not a prediction.
    """
    token = environment.token() if key_file is None else auth.valid(key_file)
    try:
        _send_text(url, token, timeout_s)
    except ServingError:
        # Another probe may have requested a new token meanwhile.
        if key_file is None or auth.read(key_file).inference == token:
            raise
        _send_text(url, auth.valid(key_file), timeout_s)


def _send_text(url: str, token: str | None, timeout_s: float) -> None:
    headers = {"Content-Type": "text/plain", "Accept": "application/json"}
    request = urllib.request.Request(f"{url}{PREDICTIONS}", _TEXT, headers)
    if token is not None:
        request.add_unredirected_header(*auth.header(token))
    try:
        with loopback.urlopen(request, timeout=timeout_s) as response:
            answer = json.load(response)
        _ = answer["probabilities"][answer["label"]]
    except urllib.error.HTTPError as error:
        with error:
            message = " ".join(error.read(500).decode("utf-8", "replace").split())
        raise ServingError(f"the model does not answer: {error.code} {message or error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise ServingError(f"the model does not answer: {getattr(error, 'reason', error)}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ServingError("what answers is no newsbert model") from error


def main(port: int | str = PORT) -> int:
    """Probe the server on this machine; return 0 if its model answers, else print the reason and return 1.

    Args:
        port: The server's port.
    """
    outcome = ["no answer"]

    def run() -> None:
        try:
            ask(f"http://127.0.0.1:{port}", auth.configured(), TIMEOUT_S)
            outcome.clear()
        except NewsbertError as error:
            outcome[0] = error.message

    # In a thread, since a server that answers a byte at a time would keep resetting a socket's timeout.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(TIMEOUT_S + 1)
    if not outcome:
        return 0
    print(outcome[0])
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
