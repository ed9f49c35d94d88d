"""Check of the locations where MLflow reads and writes artifacts: a tracking server may name any location."""

import contextlib
import functools
import urllib.parse
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from newsbert.core import loopback, uris
from newsbert.core.identifiers import parse_location
from newsbert.errors import TrackingError

_SERVER: ContextVar[str | None] = ContextVar("newsbert_tracking_server", default=None)
_INDIRECT_SCHEMES = {"runs", "models"}
"""Schemes that MLflow resolves on the server; the resolved location is checked."""


def parse(text: object, tracking_uri: str, origin: str) -> str:
    """Return the artifact location that a tracking server names, if it is allowed.

    Args:
        text: The location.
        tracking_uri: The server's URI.
        origin: The source of the location, for the error.

    Raises:
        TrackingError: If `parse_location` refuses it, or a server on another machine names a local directory.
    """
    location = parse_location(text, tracking_uri, origin)
    server = urllib.parse.urlsplit(tracking_uri)
    is_path = urllib.parse.urlsplit(location).scheme in {"", "file"}
    if is_path and server.scheme in {"http", "https"} and not loopback.is_loopback(server.hostname):
        raise TrackingError(
            f"{origin} is {location!r:.200}, a directory of this machine, and the server "
            f"{uris.without_credentials(tracking_uri)} is another",
            "start that server with --artifacts-destination instead of --default-artifact-root, or with a bucket",
        )
    return location


@contextlib.contextmanager
def guarded(tracking_uri: str) -> Iterator[None]:
    """Check all locations that MLflow accesses in this thread, until the block ends.

    A server may name a different location in every answer: for a run, for a logged model, and on a second request.

    Args:
        tracking_uri: The server's URI.

    Raises:
        TrackingError: If MLflow would access a location that `parse` refuses.
    """
    _guard()
    token = _SERVER.set(tracking_uri)
    try:
        yield
    finally:
        _SERVER.reset(token)


@functools.cache
def _guard() -> None:
    from mlflow.store.artifact import artifact_repository_registry as mlflow_registry

    registry = mlflow_registry._artifact_repository_registry
    for scheme, connect in registry.get_registered_artifact_repositories().copy().items():
        if scheme not in _INDIRECT_SCHEMES:
            registry.register(scheme, functools.partial(_connect, connect))


def _connect(connect: Callable[..., Any], artifact_uri: str, *args: Any, **kwargs: Any) -> Any:
    server = _SERVER.get()
    if server is not None:
        parse(artifact_uri, server, "the artifact location")
    return connect(artifact_uri, *args, **kwargs)
