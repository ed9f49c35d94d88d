"""Finding the model that is meant, and having its bundle on this machine: where it is, or in the cache."""

import re
import shlex
import shutil
import tempfile
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from newsbert import config, mlflow_model
from newsbert.bundle import CONTRACT_FILE, sha256_of
from newsbert.errors import ModelError, NotFoundError, TrackingError, UsageError
from newsbert.run_log import DIGEST_TAG, MODEL_ID_TAG

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

    from newsbert.tracking import Tracker

MLFLOW_GIT_COMMIT = "mlflow.source.git.commit"
REVISION_TAG = "newsbert.revision"
_BEGINNING = re.compile(r"[0-9a-f]{6,31}")
"""Of a run's id, as `newsbert runs` shows it."""

_REFERENCE = re.compile(r"(?:models:/)?(?P<name>[^/@:%'\"]+)(?:/(?P<version>[0-9]+)|@(?P<alias>[^/@]+))?")


@dataclass(frozen=True)
class Located:
    """A model whose bundle is on this machine.

    Attributes:
        name: What to call it: `BertModel/2`, `run 0a1b…` if it has no version, or its directory's name.
        path: Directory of the bundle.
        run_id: The MLflow run that made it, where that is known.
        revision: The git commit that was recorded with the run or the version, where one was.
        version: Its version, such as `2`, if it was found as one.
        model_name: The registered model that it is a version of.
        model_id: The logged model that it is, on the tracking server.
    """

    name: str
    path: Path
    run_id: str | None = None
    revision: str | None = None
    version: str | None = None
    model_name: str | None = None
    model_id: str | None = None


def locate(tracker: "Tracker", reference: str | None = None) -> Located:
    """Find a model's bundle, fetching it into the cache if the artifacts are not on this machine.

    Args:
        tracker: The tracking server that knows it.
        reference: `Name/2`, `Name@alias`, `Name` (its latest version), the same with `models:/` before it, a run
            id, its beginning or `runs:/…`; nothing for the version that was registered last, or else the latest
            finished run.

    Raises:
        NotFoundError: If there is no such model, version, alias or run.
        TrackingError: If its artifacts cannot be had.
    """
    if reference is None:
        newest = max(tracker.versions(), key=lambda version: int(version.creation_timestamp), default=None)
        if newest is None:
            return fetch_run(tracker, find_run(tracker, None))
        reference = f"{newest.name}/{newest.version}"
    is_run = reference.startswith("runs:/") or re.fullmatch(r"[0-9a-f]{32}", reference)
    if is_run or (_BEGINNING.fullmatch(reference) and not tracker.versions(reference)):
        return fetch_run(tracker, find_run(tracker, reference))
    version = find_version(tracker, reference)
    number, run_id = str(version.version), version.run_id or None
    name = f"{version.name}/{number}"
    logged = model_id(version)
    path = _fetch(tracker, name, logged, version.source, version.tags.get(DIGEST_TAG))
    revision = version.tags.get(REVISION_TAG)
    if not revision and run_id:
        run = tracker.get_run(run_id)  # it may be on another server
        revision = run.data.tags.get(MLFLOW_GIT_COMMIT) if run else None
    return Located(name, path, run_id, revision, number, version.name, logged)


def find_version(tracker: "Tracker", reference: str) -> "ModelVersion":
    """Find a version in the registry; see `locate`.

    Raises:
        UsageError: If the reference names none.
        NotFoundError: If there is no such model, version or alias.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise UsageError(f"{reference!r} names no model", "write Name/2, Name@alias, models:/Name/2 or a directory")
    name, version, alias = match["name"], match["version"], match["alias"]
    known = tracker.versions(name)
    if not known:
        names = sorted({each.name for each in tracker.versions()})
        raise NotFoundError(
            f"there is no registered model {name!r} on {tracker.where}",
            f"there are: {', '.join(names)}" if names else f"newsbert register --model-name {shlex.quote(name)}",
        )
    if alias is not None:
        found = tracker.aliased(name, alias)
        if found is None:
            raise NotFoundError(
                f"{name!r} has no alias {alias!r}",
                f"newsbert register --model-name {shlex.quote(name)} --alias {shlex.quote(alias)}",
            )
        return found
    latest = max(known, key=lambda each: int(each.version))
    if version is None:
        return latest
    found = next((each for each in known if str(each.version) == str(int(version))), None)
    if found is None:
        raise NotFoundError(f"there is no version {version} of {name!r}", f"the latest is {name}/{latest.version}")
    return found


def find_run(tracker: "Tracker", source: str | None) -> "Run":
    """Find the run that is meant, which must hold a newsbert model.

    Args:
        tracker: The tracking server that knows it.
        source: A run id or its beginning, a `runs:/…` URI, or nothing for the latest finished run.

    Raises:
        UsageError: If it names none, or several.
        NotFoundError: If there is no such run.
        TrackingError: If it holds no newsbert model.
    """
    if source is None:
        run = tracker.latest_run()
        if run is None:
            raise NotFoundError(
                f"there is no finished training run in the experiment {tracker.settings.experiment!r} "
                f"on {tracker.where}",
                "newsbert train",
            )
        return run
    if _BEGINNING.fullmatch(source):
        source = _whole_id(tracker, source)
    match = re.fullmatch(r"(?:runs:/)?(?P<run>[0-9a-f]{32})(?:/(?P<path>.*))?", source)
    if match is None:
        raise UsageError(f"{source!r} is no run", "give one of: newsbert runs; or runs:/RUN_ID/model")
    run = tracker.get_run(match["run"])
    if run is None:
        raise NotFoundError(
            f"there is no run {match['run']!r} on {tracker.where}",
            "give another run, or none for the latest finished one",
        )
    if MODEL_ID_TAG not in run.data.tags or match["path"] not in {None, "", "model"}:
        raise TrackingError(
            f"run {match['run']} is no newsbert model: its {match['path'] or 'model'!r} has no {CONTRACT_FILE} "
            f"(the run's status is {run.info.status})",
            "register a run that `newsbert train` finished",
        )
    return run


def _whole_id(tracker: "Tracker", beginning: str) -> str:
    """The id of the run of our experiment that begins so.

    Raises:
        NotFoundError: If there is none.
        UsageError: If there are several.
    """
    found: list[str] = [run.info.run_id for run in tracker.runs(f"attributes.run_id LIKE '{beginning}%'", 3)]
    if not found:
        where = f"the experiment {tracker.settings.experiment!r} on {tracker.where}"
        raise NotFoundError(f"there is no run {beginning!r} in {where}", "newsbert runs")
    if len(found) > 1:
        raise UsageError(f"several runs begin with {beginning!r}: {', '.join(found)}", "give more of its id")
    return found[0]


def fetch_run(tracker: "Tracker", run: "Run") -> Located:
    """Have the bundle of a run that `find_run` found on this machine.

    Raises:
        TrackingError: If its artifacts cannot be had.
    """
    logged = run.data.tags[MODEL_ID_TAG]
    name = f"run {run.info.run_id}"
    path = _fetch(tracker, name, logged, None, run.data.tags.get(DIGEST_TAG))
    return Located(name, path, run.info.run_id, run.data.tags.get(MLFLOW_GIT_COMMIT), model_id=logged)


def model_id(version: "ModelVersion") -> str | None:
    """The logged model behind a version; some stores tell it in the source only."""
    match = re.fullmatch(r"models:/(m-[0-9a-f]+)/?", version.source or "")
    return version.model_id or (match[1] if match else None)


def local_path(uri: str) -> Path | None:
    """The path of an artifact location on this machine, or `None` if it is elsewhere."""
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme not in {"", "file"} or parts.netloc not in {"", "localhost"}:
        return None
    return Path(urllib.parse.unquote(parts.path))


def _fetch(tracker: "Tracker", name: str, logged: str | None, source: str | None, digest: str | None) -> Path:
    """Return the bundle's directory of a logged model, from where it is or through the cache.

    Args:
        tracker: The tracking server that knows it.
        name: What to call it in errors.
        logged: The logged model.
        source: Where its files are, if it is none.
        digest: The bundle's digest that was recorded with the version or the run, if one was.

    Raises:
        ModelError: If its digest is not the recorded one.
        TrackingError: If there are no files, or not a bundle's.
    """
    digests = {digest} if digest else set()
    location = source or ""
    if logged:
        model = tracker.logged_model(logged)
        location = model.artifact_location
        if DIGEST_TAG in model.tags:
            digests.add(model.tags[DIGEST_TAG])
    with tracker.errors(f"the files of {name} cannot be fetched"):
        path = _local_or_cached(tracker, name, location, logged or urllib.parse.quote(location, safe=""))
        found = sha256_of(path / CONTRACT_FILE)
    for recorded in digests - {found}:
        in_cache = config.cache_dir() in path.parents
        raise ModelError(
            f"{name} was altered after it was registered: its digest is {found[:12]}… and the registry says "
            f"{recorded[:12]}… ({path})",
            f"rm -r {shlex.quote(str(path))}" if in_cache else "train again, or put back what was trained",
        )
    return path


def _local_or_cached(tracker: "Tracker", name: str, location: str, cache_key: str) -> Path:
    local = local_path(location)
    if local is not None and local.is_dir():
        return _checked(local / mlflow_model.BUNDLE_SUBPATH, name)
    cached = config.cache_dir() / "models" / cache_key
    if not cached.is_dir():
        cached.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=cached.parent))
        try:
            uri = f"{location.rstrip('/')}/{mlflow_model.BUNDLE_SUBPATH}"
            fetched = _checked(tracker.download(uri, partial), name)
            try:
                fetched.rename(cached)
            except OSError:
                if not cached.is_dir():  # somebody else was quicker
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return cached


def _checked(bundle: Path, name: str) -> Path:
    """The directory of a logged model's bundle, which must be one.

    Raises:
        TrackingError: If it is none.
    """
    if not (bundle / CONTRACT_FILE).is_file():
        raise TrackingError(f"{name} is no newsbert model: it has no {CONTRACT_FILE}", "newsbert train")
    return bundle
