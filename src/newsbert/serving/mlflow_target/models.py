"""Models for deployments: their bundles, and the names of their archives."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from newsbert.bundle.bundle import Bundle
from newsbert.bundle.contract import CONTRACT_FILE
from newsbert.core import temporary
from newsbert.errors import NotFoundError
from newsbert.tracking import locate
from newsbert.tracking.flavor import BUNDLE_SUBPATH


def archive_name(name: str, version: str, bundle: Bundle) -> str:
    """Return an archive's name in a model store; the bundle's digest makes it unique for a model."""
    return f"{name}-{version}-{bundle.digest[:12]}.mar"


@contextlib.contextmanager
def archive_directory(export_path: Path | None) -> Iterator[Path]:
    """Yield the directory for an archive: `export_path`, or a temporary one that another user's server can read."""
    if export_path is not None:
        yield export_path
        return
    with temporary.directory() as directory:
        for part in (directory.parent, directory):
            part.chmod(0o755)
        yield directory


@contextlib.contextmanager
def fetched(model_uri: str) -> Iterator[tuple[str, Bundle]]:
    """Yield a logged model's name in answers, and its bundle.

    Raises:
        NewsbertError: If there is no such model, or it is not one of newsbert's.
    """
    is_set = mlflow.tracking.is_tracking_uri_set()
    tracking_uri = mlflow.get_tracking_uri() if is_set else None
    bundle_directory = Path(model_uri) / BUNDLE_SUBPATH
    if (bundle_directory / CONTRACT_FILE).is_file() or (Path(model_uri) / CONTRACT_FILE).is_file():
        bundle = Bundle.read(bundle_directory if bundle_directory.is_dir() else Path(model_uri))
        yield locate.default_name(bundle), bundle
    elif _TRACKED_URI.match(model_uri) or ":/" not in model_uri:
        located = locate.locate(model_uri, tracking_uri=tracking_uri)
        yield located.name, Bundle.read(located.path)
    else:
        with temporary.directory() as directory:
            try:
                downloaded = mlflow.artifacts.download_artifacts(
                    artifact_uri=f"{model_uri.rstrip('/')}/{BUNDLE_SUBPATH}", dst_path=str(directory)
                )
            except (MlflowException, OSError) as error:
                raise NotFoundError(f"{model_uri} cannot be fetched: {error}", "give -m models:/NAME/1") from error
            bundle = Bundle.read(Path(downloaded))
            yield locate.default_name(bundle), bundle


_TRACKED_URI = re.compile(r"models:/(?!m-)|runs:/")
