"""Tracking server at a URI: its health check, its version, and errors for its refusals."""

import http.client
import shlex
import urllib.error
import urllib.parse
from typing import Any

from newsbert.core import environment, loopback, uris
from newsbert.core.settings import DEFAULT_TRACKING_URI
from newsbert.errors import TrackingError, first_line

_REACH_TIMEOUT_S = 5


def tracking_error(what: str, uri: str, error: Exception) -> TrackingError:
    """Return the error for a refusal of a tracking server, with a hint."""
    reason, hint = uris.mask_credentials(first_line(error)), "check MLFLOW_TRACKING_URI and the server"
    server = uris.mask_credentials(uri)
    message = f"{what or f'the tracking server {server} refused'}: {reason}"
    if "error code 401" in reason:
        auth = environment.tracking_credentials(uri)
        message = f"the tracking server {server} does not take {auth or 'requests without a name and a password'}"
        hint = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to an account: newsbert tracking user NAME"
        if auth and "TOKEN" in auth:
            hint = "get a new one: it may have expired"
    elif "Invalid Host header" in str(error):
        host = str(urllib.parse.urlsplit(uri).hostname)
        message = f"the tracking server at {server} does not answer to the name {host}"
        hint = f"call it by another, or start it with that: newsbert tracking up --allowed-hosts {shlex.quote(host)}"
    elif "error code 403" in reason:
        hint = (
            "the account may not change this: use an experiment and a model of its own (--experiment, --model-name),"
            " or ask whoever runs the server for a permission: newsbert tracking grant"
        )
    return TrackingError(message, hint)


def _open(uri: str, path: str) -> Any:
    base = uris.without_credentials(uri).rstrip("/")
    return loopback.urlopen(f"{base}/{path}", _REACH_TIMEOUT_S, environment.tracking_tls())


def check_reachable(uri: str) -> None:
    """Check a server's health before MLflow connects, which would retry for minutes.

    Raises:
        UsageError: If its address is ambiguous.
        TrackingError: If it does not answer.
    """
    uris.check_unambiguous(uri, "the tracking URI (MLFLOW_TRACKING_URI)")
    if not uri.startswith(("http://", "https://")):
        return
    try:
        with _open(uri, "health"):
            return
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code < 500:
            return  # it answers; MLflow itself reports the refusal
        reason = getattr(error, "reason", error)
        raise TrackingError(
            f"the tracking server {uris.mask_credentials(uri)} cannot be reached: {uris.mask_credentials(str(reason))}",
            f"start it, set MLFLOW_TRACKING_URI, or unset it to use {DEFAULT_TRACKING_URI} here",
        ) from error


def server_version(uri: str) -> str | None:
    """Return the MLflow version of a server, or `None` if there is no server or no answer."""
    if not uri.startswith(("http://", "https://")):
        return None
    try:
        with _open(uri, "version") as response:
            return str(response.read(100).decode("ascii").strip())
    except (OSError, ValueError, http.client.HTTPException):
        return None
