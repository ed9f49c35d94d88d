"""Where a tracking server keeps its artifacts: seen to be writable before the server starts."""

import contextlib
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from newsbert import config, uris
from newsbert.errors import MissingExtraError, TrackingError, UsageError, first_line

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

_CHECK_TIMEOUT_S = 30
_HINTS = {
    "s3": "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or the role, and s3:GetObject, PutObject, DeleteObject and"
    " ListBucket on the bucket",
    "gs": "check GOOGLE_APPLICATION_CREDENTIALS or the machine's account, and roles/storage.objectAdmin on the bucket",
    "": "give a directory that can be written, or a bucket: --artifacts s3://BUCKET/PATH",
}


def located(given: str) -> str:
    """A bucket's URI, or a directory's path, as the server is told it.

    Raises:
        UsageError: If it is neither.
    """
    scheme, colon, _ = given.partition("://")
    if not colon:
        return str(Path(given).expanduser().absolute())
    if scheme not in {"s3", "gs"} or not given[len(scheme) + 3 :].strip("/"):
        raise UsageError(f"no artifacts can be kept in {given!r}", "give gs://BUCKET, s3://BUCKET or a directory")
    return given.rstrip("/")


def check(uri: str) -> None:
    """Write, find, read and delete a small file there.

    Raises:
        TrackingError: If one of these is not possible, or takes longer than 30 s: a bucket's library tries again for
            minutes what it cannot reach.
    """
    failed: list[Exception] = []

    def run() -> None:
        try:
            _check(uri)
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(_CHECK_TIMEOUT_S)
    if thread.is_alive():
        raise TrackingError(f"{uri} was not written within {_CHECK_TIMEOUT_S} s", _hint(uri))
    if failed:
        raise failed[0]


def _check(uri: str) -> None:
    name = f"newsbert-check-{uuid.uuid4().hex[:12]}.txt"
    with errors(uri), tempfile.TemporaryDirectory(prefix="newsbert-") as directory:
        file = Path(directory, name)
        file.write_text(name, encoding="utf-8")
        found = repository(uri)
        found.log_artifact(str(file))
        try:
            if name not in {each.path for each in found.list_artifacts()}:
                raise TrackingError(f"{uri} does not list what was written to it", _hint(uri))
            file.unlink()
            found.download_artifacts(name, directory)
            if file.read_text(encoding="utf-8") != name:
                raise TrackingError(f"{uri} does not give back what was written to it", _hint(uri))
        finally:
            found.delete_artifacts(name)


def repository(uri: str) -> "ArtifactRepository":
    """MLflow's own access to where artifacts are."""
    config.quiet_mlflow()
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    if "://" not in uri:
        Path(uri).mkdir(mode=0o700, parents=True, exist_ok=True)
        uri = uris.as_uri(uri)
    elif uri.startswith("gs:") and not config.google_storage_emulated():
        import google.auth

        google.auth.default()  # where this fails, MLflow goes on as nobody, and tells of that alone
    return get_artifact_repository(uri)


def _hint(uri: str) -> str:
    return _HINTS["" if "://" not in uri else uri.partition("://")[0]]


@contextlib.contextmanager
def errors(uri: str) -> Iterator[None]:
    """Turn a bucket's and the disk's errors into ours.

    Raises:
        TrackingError: With what to do.
        MissingExtraError: If the bucket's library is not installed.
    """
    try:
        yield
    except TrackingError:
        raise
    except ImportError as error:
        raise MissingExtraError(str(error.name), "tracking") from error
    except OSError as error:
        raise TrackingError(f"{uri} cannot be written: {error.strerror or first_line(error)}", _hint(uri)) from error
    except Exception as error:  # of two clouds' libraries, which have no kind in common
        raise TrackingError(f"{uri} cannot be used: {first_line(error)}", _hint(uri)) from error
