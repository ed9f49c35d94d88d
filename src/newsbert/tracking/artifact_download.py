"""Fetching files of a store by their names: no more bytes than are allowed, and from nowhere else."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from newsbert.errors import TrackingError

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository

_CHUNK_BYTES = 2**20


def fetch(repository: "ArtifactRepository", names: Sequence[str], directory: Path, most: int) -> None:
    """Fetch files into a directory; MLflow's errors and those of a store's client are their own.

    Args:
        repository: MLflow's access to where they are.
        names: Names that `identifiers.is_file_name` lets through.
        directory: Where they are written.
        most: How many bytes they may have together.

    Raises:
        TrackingError: If they have more, or the server sends elsewhere.
    """
    from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository

    if isinstance(repository, HttpArtifactRepository):
        for name in names:
            most -= _stream(repository, name, directory / name, most)
        return
    # A bucket's own list is true. It also has what is fetched by another name or by nobody.
    sizes = {file.path: file.file_size or 0 for file in repository.list_artifacts()}
    if sum(sizes.get(name, 0) for name in names) > most:
        raise _too_large(", ".join(names)[:80], most)
    for name in names:
        repository._download_file(name, str(directory / name))


def _stream(repository: "HttpArtifactRepository", name: str, file: Path, most: int) -> int:
    """Fetch a file from a tracking server, and return its size.

    Not by MLflow's own function: that has no limit, follows redirects, and asks any address with any headers that a
    server which speaks of "presigned" URLs wants it to.
    """
    from mlflow.utils.request_utils import augmented_raise_for_status
    from mlflow.utils.rest_utils import http_request

    written = 0
    with (
        http_request(repository._host_creds, f"/{name}", "GET", stream=True, allow_redirects=False) as response,
        file.open("wb") as stream,
    ):
        if response.is_redirect:
            raise TrackingError(f"the server sends elsewhere for {name}", "set MLFLOW_TRACKING_URI to that address")
        augmented_raise_for_status(response)
        for chunk in response.iter_content(_CHUNK_BYTES):
            written += len(chunk)
            if written > most:
                raise _too_large(name, most)
            stream.write(chunk)
    return written


def _too_large(name: str, most: int) -> TrackingError:
    return TrackingError(f"{name}: larger than the {most} bytes that are left for it", "check who runs that server")
