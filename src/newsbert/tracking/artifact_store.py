"""Where MLflow keeps artifacts: tried with a small file before anything relies on it."""

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
    """Turn the errors of a store's client, of the network and of the disk into ours.

    Raises:
        TrackingError: With what mends it.
        MissingExtraError: If the store's client is not installed.
    """
    try:
        yield
    except Exception as error:
        found = foreign_errors.translate(error, what or f"{uris.mask_credentials(uri)} cannot be used", "", uri)
        if found is None or found is error:
            raise
        raise found from error


def check_credentials(uri: str) -> None:
    """Look for credentials where their absence would be known after a minute only: Azure's client tries again.

    Raises:
        Exception: The client's own, if there are none.
    """
    scheme = uri.partition("://")[0]
    if scheme == "abfss" or (scheme == "wasbs" and not environment.has_azure_key()):
        from azure.identity import DefaultAzureCredential

        with DefaultAzureCredential() as credential:
            credential.get_token("https://storage.azure.com/.default")


def check(
    uri: str, connect: "Callable[[], ArtifactRepository]", *, delete: bool = True, timeout_s: float = _TIMEOUT_S
) -> None:
    """Write, find, read and delete a small file in a store, whose client's errors stay as they are.

    Args:
        uri: Of the store.
        connect: Returns MLflow's access to it.
        delete: Whether the file has to be deletable: training never deletes.
        timeout_s: How long it may take: a store's client tries again for minutes when it reaches nothing.

    Raises:
        TrackingError: If the file is not found, comes back otherwise, or all this takes too long.
    """
    failed: list[Exception] = []

    def run() -> None:
        try:
            _check(uri, connect, delete)
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise object_stores.store_error([TimeoutError(f"no answer within {timeout_s:g} s: timed out")], "", uri)
    if failed:
        raise failed[0]


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
            if name not in {Path(each.path).name for each in repository.list_artifacts()}:
                raise TrackingError(f"{shown} does not list what was written to it", "check the store")
            if Path(repository.download_artifacts(name, str(directory))).read_text(encoding="utf-8") != name:
                raise TrackingError(f"{shown} does not give back what was written to it", "check the store")
        finally:
            with contextlib.nullcontext() if delete else contextlib.suppress(Exception):
                repository.delete_artifacts(name)
