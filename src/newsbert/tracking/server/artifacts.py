"""Artifact location of a tracking server, checked for write access before the server starts."""

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


def located(place: str) -> str:
    """Return a bucket's URI or a directory's path in the form that the server takes.

    Raises:
        UsageError: If it is neither.
    """
    scheme, colon, _ = place.partition("://")
    if not colon:
        return str(Path(place).expanduser().absolute())
    if scheme not in _SCHEMES or not place[len(scheme) + 3 :].strip("/"):
        raise UsageError(
            f"artifacts cannot be stored in {place!r}", "give s3://BUCKET, gs://BUCKET, wasbs://… or a directory"
        )
    return place.rstrip("/")


def check(uri: str) -> None:
    """Write, list, read and delete a small file at an artifact location.

    Raises:
        TrackingError: If one of these is not possible, or takes longer than 30 s.
        MissingExtraError: If the bucket's client is not installed.
    """
    with errors(uri):
        artifact_store.check(uri, functools.partial(repository, uri))


def repository(uri: str) -> "ArtifactRepository":
    """Return MLflow's repository for an artifact location."""
    environment.silence_mlflow()
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    if "://" not in uri:
        Path(uri).mkdir(mode=0o700, parents=True, exist_ok=True)
        uri = uris.as_uri(uri)
    elif uri.startswith("gs:") and not environment.google_storage_emulated():
        import google.auth

        google.auth.default()  # if this fails, MLflow would continue anonymously and report only that
    return get_artifact_repository(uri)


@contextlib.contextmanager
def errors(uri: str) -> Iterator[None]:
    """Translate the errors of a bucket and of the disk.

    Raises:
        TrackingError: For these errors, with a hint.
        MissingExtraError: If the bucket's client is not installed.
    """
    with artifact_store.errors(uri):
        try:
            yield
        except OSError as error:
            if "://" in uri:
                raise
            raise TrackingError(f"{uri} cannot be written: {error.strerror or first_line(error)}", _HINT) from error
