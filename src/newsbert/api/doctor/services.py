"""Checks of services that newsbert uses: tracking server, engine, registry, bucket, Hugging Face Hub."""

import uuid

from newsbert.api.doctor.checks import NoteError, UnusedError
from newsbert.core import config, installation, uris
from newsbert.core.settings import ImageSettings, TrackingServerSettings, TrackingSettings
from newsbert.errors import first_line
from newsbert.tracking import experiment, locate, sqlite

_HUB_MODEL = "google-bert/bert-base-uncased"
_HUB_TIMEOUT_S = 10


def tracked() -> str:
    """Create a run on the tracking server, log a file, read it back, and delete the run.

    Raises:
        TrackingError: If one of these steps fails.
    """
    uri = config.resolve(TrackingSettings).tracking_uri
    file = sqlite.path_of(uri)
    if file is not None and not file.exists():
        return f"{uris.mask_credentials(uri)}: made by the first training"
    tracker = locate.connect()
    server = experiment.check_round_trip(tracker, f"newsbert-doctor-{uuid.uuid4().hex[:12]}")
    return f"{uris.mask_credentials(uri)}, {server}: a run and a file were written, read and deleted"


def container_engine() -> str:
    """Return the name and version of the engine.

    Raises:
        EngineError: If no engine answers.
    """
    from newsbert.images.engine.engine import Engine

    return Engine().version()


def registry() -> str:
    """Check that the registry of the images answers, and whether there are credentials for it.

    Raises:
        UnusedError: If no registry is set.
        EngineError: If there is no engine, or the registry does not answer it or denies access.
    """
    repository = config.resolve(ImageSettings).repository
    host = repository.partition("/")[0]
    if not ({".", ":"} & set(host) or host == "localhost"):
        raise UnusedError("no [image] repository of a registry is set")
    from newsbert.images.engine.engine import Engine

    logged_in = Engine().reads(repository)
    return f"{host} answers, {'with' if logged_in else 'without'} credentials of docker login"


def bucket() -> str:
    """Write, read and delete a file in the artifact bucket of `newsbert tracking up`.

    Raises:
        UnusedError: If the artifacts are not in a bucket.
        TrackingError: If one of these steps fails.
    """
    uri = config.resolve(TrackingServerSettings).artifacts or ""
    if "://" not in uri:
        raise UnusedError("no [tracking] artifacts in a bucket are set")
    from newsbert.tracking.server import artifacts

    artifacts.check(artifacts.located(uri))
    return f"{uri}: a file was written, read and deleted"


def hub() -> str:
    """Check that models and data sets of the Hub are available.

    Raises:
        UnusedError: If `HF_HUB_OFFLINE` is set.
        NoteError: If the Hub does not answer, or its client is not installed.
    """
    try:
        from huggingface_hub import HfApi, constants, get_token
    except ImportError as error:
        raise NoteError("the Hub's client is not installed", installation.command("train")) from error
    if constants.HF_HUB_OFFLINE:
        raise UnusedError("HF_HUB_OFFLINE is set: what is in its cache is used")
    try:
        HfApi().model_info(_HUB_MODEL, timeout=_HUB_TIMEOUT_S)
    except Exception as error:  # errors of two HTTP libraries, and of the client
        raise NoteError(
            f"{constants.ENDPOINT}: {first_line(error)}",
            "set HTTPS_PROXY, or HF_HUB_OFFLINE=1; the encoder and the sample that come with newsbert need no Hub",
        ) from error
    return f"{constants.ENDPOINT} answers, {'with' if get_token() else 'without'} a token"
