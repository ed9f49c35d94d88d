"""Where a tracking server keeps its artifacts: seen to be writable before the server starts."""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from newsbert.core import environment, uris
from newsbert.errors import TrackingError, UsageError, first_line
from newsbert.tracking import artifact_store

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

_HINT = "give a directory that can be written, or a bucket: --artifacts s3://BUCKET/PATH"
_SCHEMES = ("s3", "gs", "wasbs", "abfss")


def located(given: str) -> str:
    """A bucket's URI, or a directory's path, as the server is told it.

    Raises:
        UsageError: If it is neither.
    """
    scheme, colon, _ = given.partition("://")
    if not colon:
        return str(Path(given).expanduser().absolute())
    if scheme not in _SCHEMES or not given[len(scheme) + 3 :].strip("/"):
        raise UsageError(
            f"no artifacts can be kept in {given!r}", "give s3://BUCKET, gs://BUCKET, wasbs://… or a directory"
        )
    return given.rstrip("/")


def check(uri: str) -> None:
    """Write, find, read and delete a small file there.

    Raises:
        TrackingError: If one of these is not possible, or takes longer than 30 s.
        MissingExtraError: If the bucket's client is not installed.
    """
    with errors(uri):
        artifact_store.check(uri, functools.partial(repository, uri))


def repository(uri: str) -> "ArtifactRepository":
    """MLflow's own access to where artifacts are."""
    environment.silence_mlflow()
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    if "://" not in uri:
        Path(uri).mkdir(mode=0o700, parents=True, exist_ok=True)
        uri = uris.as_uri(uri)
    elif uri.startswith("gs:") and not environment.google_storage_emulated():
        import google.auth

        google.auth.default()  # where this fails, MLflow goes on as nobody, and tells of that alone
    return get_artifact_repository(uri)


@contextlib.contextmanager
def errors(uri: str) -> Iterator[None]:
    """Turn a bucket's and the disk's errors into ours.

    Raises:
        TrackingError: With what to do.
        MissingExtraError: If the bucket's client is not installed.
    """
    with artifact_store.errors(uri):
        try:
            yield
        except OSError as error:
            if "://" in uri:
                raise
            raise TrackingError(f"{uri} cannot be written: {error.strerror or first_line(error)}", _HINT) from error
