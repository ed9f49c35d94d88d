"""Check of an artifact store, with a small file, before anything relies on it."""

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from newsbert.core import environment, object_stores, temporary, uris
from newsbert.errors import TrackingError
from newsbert.tracking import foreign_errors

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

_TIMEOUT_S = 30


@contextlib.contextmanager
def errors(uri: str, what: str = "") -> Iterator[None]:
    """Translate the errors of a store's client, the network and the disk.

    Raises:
        TrackingError: For these errors, with a hint.
        MissingExtraError: If the store's client is not installed.
    """
    try:
        yield
    except Exception as error:
        translated = foreign_errors.translate(error, what or f"{uris.mask_credentials(uri)} cannot be used", "", uri)
        if translated is None or translated is error:
            raise
        raise translated from error


def check_credentials(uri: str) -> None:
    """Check that there are credentials for Azure, whose client otherwise retries for a minute.

    Raises:
        Exception: The client's own error, if there are none.
    """
    scheme = uri.partition("://")[0]
    if scheme == "abfss" or (scheme == "wasbs" and not environment.has_azure_key()):
        from azure.identity import DefaultAzureCredential

        with DefaultAzureCredential() as credential:
            credential.get_token("https://storage.azure.com/.default")


def check(
    uri: str, connect: "Callable[[], ArtifactRepository]", *, delete: bool = True, timeout_s: float = _TIMEOUT_S
) -> None:
    """Write, list, read and delete a small file in a store, without translating its client's errors.

    Args:
        uri: The store's URI.
        connect: Returns MLflow's repository for it.
        delete: Whether the file has to be deletable: training never deletes.
        timeout_s: The maximum duration: a store's client retries for minutes when it reaches nothing.

    Raises:
        TrackingError: If the file is not listed, comes back changed, or the check takes too long.
    """
    raised: list[Exception] = []

    def run() -> None:
        try:
            _check(uri, connect, delete)
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise object_stores.store_error([TimeoutError(f"no answer within {timeout_s:g} s: timed out")], "", uri)
    if raised:
        raise raised[0]


def _check(uri: str, connect: "Callable[[], ArtifactRepository]", delete: bool) -> None:
    shown = uris.mask_credentials(uri)
    name = f"newsbert-check-{uuid.uuid4().hex[:12]}.txt"
    with temporary.directory() as directory:
        file = directory / name
        file.write_text(name, encoding="utf-8")
        check_credentials(uri)
        repository = connect()
        repository.log_artifact(str(file))
        file.unlink()
        try:
            if name not in {Path(entry.path).name for entry in repository.list_artifacts()}:
                raise TrackingError(f"{shown} does not list what was written to it", "check the store")
            if Path(repository.download_artifacts(name, str(directory))).read_text(encoding="utf-8") != name:
                raise TrackingError(f"{shown} does not give back what was written to it", "check the store")
        finally:
            with contextlib.nullcontext() if delete else contextlib.suppress(Exception):
                repository.delete_artifacts(name)
