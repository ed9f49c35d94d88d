"""Where MLflow's own calls read and write artifacts: at no place that only a tracking server names."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from newsbert.identifiers import parse_location

_SERVER: ContextVar[str | None] = ContextVar("newsbert_tracking_server", default=None)
_INDIRECT = {"runs", "models"}
"""MLflow asks a server where these are, and comes here again with the answer."""


@contextlib.contextmanager
def guarded(tracking_uri: str) -> Iterator[None]:
    """Have `parse_location` look at all locations that MLflow goes to in this thread, until the block ends.

    A server may name another one whenever it is asked: for a run, for a logged model, and the second time.

    Args:
        tracking_uri: The server's.

    Raises:
        TrackingError: If MLflow would read from or write to what `parse_location` refuses.
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
        if scheme not in _INDIRECT:
            registry.register(scheme, functools.partial(_connect, connect))


def _connect(connect: Callable[..., Any], artifact_uri: str, *args: Any, **kwargs: Any) -> Any:
    server = _SERVER.get()
    if server is not None:
        parse_location(artifact_uri, server, "the artifact location")
    return connect(artifact_uri, *args, **kwargs)
