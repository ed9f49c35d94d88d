"""Find a model and provide its bundle on this machine: in place, or through the cache."""

import contextlib
import functools
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from newsbert.bundle.bundle import Bundle
from newsbert.bundle.contract import CONTRACT_FILE, LABELS_FILE, SIGNATURE_FILE
from newsbert.core import environment, temporary
from newsbert.core.identifiers import (
    parse_digest,
    parse_location,
    parse_model_id,
    parse_version,
)
from newsbert.core.uris import local_path
from newsbert.errors import ModelError, TrackingError
from newsbert.tracking import flavor
from newsbert.tracking.references import RUN_ID_PREFIX, describe_run, find_run, find_version
from newsbert.tracking.runs import DIGEST_TAG, MODEL_ID_TAG

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

    from newsbert.tracking.client import TrackingClient

MLFLOW_GIT_COMMIT = "mlflow.source.git.commit"
REVISION_TAG = "newsbert.revision"

MAX_CONTRACT_BYTES, MAX_BUNDLE_BYTES = 16 * 2**20, 8 * 2**30
"""Size limits of downloads: a server shows only afterwards where a file ends."""


@dataclass(frozen=True)
class ModelLocation:
    """A model whose bundle is on this machine.

    Attributes:
        name: Its display name: `BertModel/2`, `run 0a1b…` if it has no version, or its directory's name.
        path: Directory of the bundle.
        run_id: The MLflow run that created it, if known.
        revision: The git commit that was recorded with the run or the version, if any.
        version: Its version, such as `2`, if it was located as one.
        model_name: The registered model that it is a version of.
        model_id: Its logged model on the tracking server.
        choice: The chosen run and its user, if the reference left that open.
    """

    name: str
    path: Path
    run_id: str | None = None
    revision: str | None = None
    version: str | None = None
    model_name: str | None = None
    model_id: str | None = None
    choice: str | None = None


def locate(tracker: "TrackingClient", reference: str | None = None) -> ModelLocation:
    """Find a model's bundle, fetching it into the cache if the artifacts are not on this machine.

    Args:
        tracker: The tracking server that knows it.
        reference: `Name/2`, `Name@alias`, `Name` (its latest version), the same with `models:/` before it, a run
            id, its beginning or `runs:/…`; nothing for the version that was registered last, or else the latest
            finished run.

    Raises:
        NotFoundError: If there is no such model, version, alias or run.
        TrackingError: If its artifacts cannot be fetched.
    """
    if reference is None:
        newest = max(tracker.versions(), key=lambda version: int(version.creation_timestamp), default=None)
        if newest is None:
            latest = find_run(tracker, None)
            return replace(fetch_run(tracker, latest), choice=describe_run(latest))
        reference = f"{newest.name}/{newest.version}"
    is_run = reference.startswith("runs:/") or re.fullmatch(r"[0-9a-f]{32}", reference)
    if is_run or (RUN_ID_PREFIX.fullmatch(reference) and not tracker.versions(reference)):
        return fetch_run(tracker, find_run(tracker, reference))
    version = find_version(tracker, reference)
    number, run_id = parse_version(version.version, f"the version of {version.name}"), version.run_id or None
    name = f"{version.name}/{number}"
    logged = model_id(version)
    read = functools.partial(Bundle.read, name=name, run_id=run_id)
    path = _fetch(tracker, name, logged, version.source, version.tags.get(DIGEST_TAG), read)
    revision = version.tags.get(REVISION_TAG)
    if not revision and run_id:
        run = tracker.get_run(run_id)  # it may be on another server
        revision = run.data.tags.get(MLFLOW_GIT_COMMIT) if run else None
    return ModelLocation(name, path, run_id, revision, number, version.name, logged)


def fetch_run(tracker: "TrackingClient", run: "Run", *, check_signature: bool = True) -> ModelLocation:
    """Locate the bundle of a run that `find_run` returned, fetching it if necessary.

    Args:
        tracker: The tracking server that knows it.
        run: The run.
        check_signature: Whether one of `trusted_keys`, if they are set, must have read_verified it.

    Raises:
        TrackingError: If its artifacts cannot be fetched.
    """
    logged = parse_model_id(run.data.tags[MODEL_ID_TAG], f"the tag {MODEL_ID_TAG} of run {run.info.run_id}")
    name = f"run {run.info.run_id}"
    recorded = run.data.tags.get(DIGEST_TAG)
    read_verified = functools.partial(Bundle.read, name=name, run_id=run.info.run_id)
    path = _fetch(tracker, name, logged, None, recorded, read_verified if check_signature else Bundle.read_unsigned)
    return ModelLocation(name, path, run.info.run_id, run.data.tags.get(MLFLOW_GIT_COMMIT), model_id=logged)


def model_id(version: "ModelVersion") -> str | None:
    """Return the id of a version's logged model; some stores have it in the source only.

    Raises:
        TrackingError: If the id is invalid.
    """
    match = re.fullmatch(r"models:/(m-[^/]*)/?", version.source or "")
    text = version.model_id or (match[1] if match else None)
    return parse_model_id(text, f"the logged model of {version.name}/{version.version}") if text else None


def _fetch(
    tracker: "TrackingClient",
    name: str,
    logged: str | None,
    source: str | None,
    digest: str | None,
    read: Callable[[Path], Bundle],
) -> Path:
    """Return the path of a logged model's verified bundle, in place or in the cache.

    Args:
        tracker: The tracking server that knows it.
        name: Its name in errors.
        logged: The logged model.
        source: The location of its files, if there is no logged model.
        digest: The bundle's digest that was recorded with the version or the run, if any.
        read: Reads a bundle, and checks its signature if required.

    Raises:
        ModelError: If its digest is not the recorded one.
        TrackingError: If there are no files, or they are no bundle.
    """
    digests = [digest] if digest else []
    location = source or ""
    if logged:
        model = tracker.logged_model(logged)
        location = model.artifact_location
        if DIGEST_TAG in model.tags:
            digests.append(model.tags[DIGEST_TAG])
    server = tracker.settings.registry_uri or tracker.settings.tracking_uri
    location = parse_location(location, tracker.settings.tracking_uri, f"the artifact location of {name}")
    recorded = {parse_digest(text, f"the digest of {name}") for text in digests}
    read_recorded = functools.partial(_read, name=name, recorded=recorded, read=read)
    local = local_path(location)
    if local is not None and local.is_dir():
        return _verify(read_recorded(local / flavor.BUNDLE_SUBPATH))
    # The key is a digest: no text from a server becomes part of a path.
    key = hashlib.sha256(f"{server}\n{location}".encode("utf-8", "surrogatepass")).hexdigest()
    cached = environment.cache_dir() / "models" / key
    if cached.is_dir():
        try:
            return _verify(read_recorded(cached))
        except ModelError:
            pass  # the cached bundle was damaged: it is fetched again
    _download(tracker, f"{location.rstrip('/')}/{flavor.BUNDLE_SUBPATH}", cached, name, read_recorded)
    return cached


def _download(
    tracker: "TrackingClient", location: str, cached: Path, name: str, read: Callable[[Path], Bundle]
) -> None:
    """Fetch a bundle and move it into the cache once it is verified.

    The contract comes first and names the other files. Of the server's own listing, only a signature is used.
    """
    with contextlib.ExitStack() as stack:
        try:
            cached.parent.mkdir(parents=True, exist_ok=True)
            partial = stack.enter_context(temporary.directory(cached.parent))
        except OSError as error:
            raise TrackingError(
                f"the cache {cached.parent} cannot be written to: {error.strerror or error}", "set NEWSBERT_CACHE_DIR"
            ) from error
        fetched = partial / "bundle"
        fetched.mkdir()
        with tracker.errors(f"the files of {name} cannot be fetched", location):
            tracker.download_files(location, [CONTRACT_FILE, LABELS_FILE], fetched, MAX_CONTRACT_BYTES)
            if tracker.has_file(location, SIGNATURE_FILE):
                tracker.download_files(location, [SIGNATURE_FILE], fetched, MAX_CONTRACT_BYTES)
        bundle = read(fetched)
        with tracker.errors(f"the files of {name} cannot be fetched", location):
            others = sorted(set(bundle.contract.files) - {LABELS_FILE})
            tracker.download_files(location, others, fetched, MAX_BUNDLE_BYTES)
        _verify(read(fetched))
        with tracker.errors(f"the files of {name} cannot be cached"):
            if cached.is_dir():
                cached.rename(partial / "replaced")
            try:
                fetched.rename(cached)
            except OSError:
                if not cached.is_dir():  # unless another process was faster
                    raise


def _read(directory: Path, name: str, recorded: set[str], read: Callable[[Path], Bundle]) -> Bundle:
    """Read a bundle and compare its digest with the recorded one.

    Raises:
        TrackingError: If it is no bundle.
        ModelError: If its digest differs, or the required signature of a trusted key is missing.
    """
    if not (directory / CONTRACT_FILE).is_file():
        raise TrackingError(f"{name} is no newsbert model: it has no {CONTRACT_FILE}", "newsbert train")
    bundle = read(directory)
    for digest in recorded - {bundle.digest}:
        raise ModelError(
            f"{name} was altered after it was registered: its digest is {bundle.digest[:12]}… and the registry says "
            f"{digest[:12]}…",
            "train and register it again, or put back what was trained",
        )
    return bundle


def _verify(bundle: Bundle) -> Path:
    """Verify all files of a bundle, and return its directory.

    Raises:
        ModelError: If a file is missing, altered or added.
    """
    bundle.verify()
    return bundle.path
