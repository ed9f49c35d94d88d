"""Download of named files from a store, with a size limit and without redirects."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from newsbert.errors import TrackingError

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository

_CHUNK_BYTES = 2**20


def fetch(repository: "ArtifactRepository", names: Sequence[str], directory: Path, most: int) -> None:
    """Fetch files into a directory, without translating errors of MLflow or of a store's client.

    Args:
        repository: MLflow's repository that holds them.
        names: Names that `identifiers.is_file_name` accepts.
        directory: The target directory.
        most: The maximum of their total size in bytes.

    Raises:
        TrackingError: If they are larger, or the server redirects.
    """
    from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository

    if isinstance(repository, HttpArtifactRepository):
        for name in names:
            most -= _stream_file(repository, name, directory / name, most)
        return
    # A bucket lists true sizes. It may also list files that are not among the names.
    sizes = {file.path: file.file_size or 0 for file in repository.list_artifacts()}
    if sum(sizes.get(name, 0) for name in names) > most:
        raise _make_size_error(", ".join(names)[:80], most)
    for name in names:
        repository._download_file(name, str(directory / name))


def _stream_file(repository: "HttpArtifactRepository", name: str, file: Path, most: int) -> int:
    """Fetch a file from a tracking server, and return its size.

    MLflow's own function is not used. It has no size limit and follows redirects. If a server offers "presigned"
    URLs, it also sends requests to any address, with any headers that the server chooses.
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
                raise _make_size_error(name, most)
            stream.write(chunk)
    return written


def _make_size_error(name: str, most: int) -> TrackingError:
    return TrackingError(f"{name}: larger than the {most} bytes that are left for it", "check who runs that server")
