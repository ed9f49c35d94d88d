"""Find the model that a reference means, and its bundle."""

import contextlib
from pathlib import Path

from newsbert.bundle import contract
from newsbert.bundle.bundle import Bundle
from newsbert.core import config
from newsbert.core.installation import MissingExtraError
from newsbert.core.settings import TrackingSettings
from newsbert.errors import ModelError, NewsbertError
from newsbert.tracking import artifacts
from newsbert.tracking.artifacts import ModelLocation
from newsbert.tracking.client import TrackingClient


def default_name(bundle: Bundle) -> str:
    """Return the name of an unregistered bundle in answers: its digest, which does not depend on its path."""
    return f"bundle {bundle.digest[:12]}"


def locate(reference: str | Path | None = None, *, tracking_uri: str | None = None) -> ModelLocation:
    """Find the model that `reference` means and its bundle's directory; see `load`.

    Raises:
        NewsbertError: If there is no such model.
    """
    if reference is None:
        return artifacts.locate(connect(tracking_uri))
    text, path = str(reference), Path(reference)
    with contextlib.suppress(RuntimeError):  # an unknown user's home: there is no such directory either
        path = path.expanduser()
    try:
        is_directory = (path / contract.CONTRACT_FILE).is_file() or path.is_dir()
    except OSError as error:
        raise ModelError(
            f"{text!r} cannot be read: {error.strerror}", "check the path and its rights, or give Name/2"
        ) from error
    if is_directory or text.startswith((".", "/", "~")):
        Bundle.read(path)  # raises an error for missing files
        return ModelLocation(path.name or path.resolve().name, path)
    return artifacts.locate(connect(tracking_uri), text)


def connect(tracking_uri: str | None = None, experiment: str | None = None, *, create: bool = False) -> TrackingClient:
    """Connect to the tracking server; omitted arguments come from the configuration.

    Args:
        tracking_uri: MLflow's tracking URI.
        experiment: MLflow's experiment.
        create: Whether to create a missing database file.

    Raises:
        NotFoundError: If it is a missing database file.
        TrackingError: If it cannot be reached.
    """
    settings = config.resolve(TrackingSettings, tracking_uri=tracking_uri, experiment=experiment)
    try:
        return TrackingClient(settings, create=create)
    except ModuleNotFoundError as error:
        raise _make_missing_extra_error(error) from error


def _make_missing_extra_error(error: ModuleNotFoundError) -> NewsbertError:
    module = (error.name or "").partition(".")[0]
    if module == "newsbert":
        raise error
    return MissingExtraError(module, "train")
