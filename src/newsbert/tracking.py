"""MLflow runs and the model registry: what is logged, what becomes a version, and where its bundle is.

With `run_log.py` and `mlflow_model.py` the only importers of mlflow.
"""

import contextlib
import functools
import http.client
import logging
import re
import shlex
import shutil
import tempfile
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newsbert import config, loopback, mlflow_model, tracking_file
from newsbert.bundle import CONTRACT_FILE, Bundle, sha256_of
from newsbert.config import DEFAULT_TRACKING_URI, TrackingSettings
from newsbert.errors import ModelError, NotFoundError, TrackingError, UsageError
from newsbert.run_log import DIGEST_TAG, MODEL_ID_TAG, RunLog

if TYPE_CHECKING:
    from mlflow.entities import Run

MLFLOW_GIT_COMMIT = "mlflow.source.git.commit"
REVISION_TAG = "newsbert.revision"
_REACH_TIMEOUT_S = 5
_REFERENCE = re.compile(r"(?:models:/)?(?P<name>[^/@:%'\"]+)(?:/(?P<version>[0-9]+)|@(?P<alias>[^/@]+))?")


@dataclass(frozen=True)
class Version:
    """A version in the registry; `created` is false if the run's model was one before."""

    name: str
    version: str
    run_id: str
    created: bool = False
    alias: str | None = None

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


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
    """

    name: str
    path: Path
    run_id: str | None = None
    revision: str | None = None
    version: str | None = None
    model_name: str | None = None


class Tracker:
    """A tracking server that was reached.

    Args:
        settings: Where it is and which experiment is ours.
        create: Whether to make the database where it is a file that is not there: training does, readers do not.

    Raises:
        NotFoundError: If it is a database file that is not there.
        TrackingError: If it cannot be reached or used.
    """

    def __init__(self, settings: TrackingSettings, *, create: bool = False) -> None:
        self.settings = settings
        _check_reachable(settings.tracking_uri)
        config.quiet_mlflow()
        import mlflow

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # its errors reach the user as ours
        mlflow.set_tracking_uri(settings.tracking_uri)
        mlflow.set_registry_uri(settings.registry_uri or "")  # empty: the tracking server, whichever is set later
        with contextlib.ExitStack() as files:
            for uri in dict.fromkeys((settings.tracking_uri, settings.registry_uri or settings.tracking_uri)):
                file = tracking_file.path_of(uri)
                if file is not None:
                    make = functools.partial(self._make_database, uri) if create else None
                    files.enter_context(tracking_file.ready(file, make))
            with self.errors():
                self._client = mlflow.MlflowClient()
                self._client.search_experiments(max_results=1)

    def _make_database(self, uri: str, file: Path) -> None:
        """Let MLflow make its tables in `file` as it would in the database of `uri`."""
        import mlflow
        from sqlalchemy.engine import make_url

        with self.errors():
            mlflow.MlflowClient(str(make_url(uri).set(database=str(file)))).search_experiments(max_results=1)

    @contextlib.contextmanager
    def run(self) -> Iterator[RunLog]:
        """Start a run in our experiment; it ends as FINISHED, FAILED, or KILLED when interrupted.

        Raises:
            TrackingError: If the server refuses.
        """
        import mlflow
        from mlflow.system_metrics import set_system_metrics_sampling_interval

        with self.errors():
            # Under `mlflow run`, MLflow has made the run already and says so in the environment.
            if not config.in_mlflow_run():
                mlflow.set_experiment(self.settings.experiment)
            set_system_metrics_sampling_interval(5)  # type: ignore[no-untyped-call]
            active = mlflow.start_run(log_system_metrics=True)
        status = "FAILED"
        try:
            self._check_artifacts(active.info.artifact_uri)
            yield RunLog(active.info.run_id, self.errors)
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            with contextlib.suppress(Exception) if status != "FINISHED" else self.errors():
                mlflow.end_run(status)

    def _check_artifacts(self, uri: str) -> None:
        """Find out before any work whether artifacts can be written, where they go to this machine.

        Raises:
            TrackingError: If not.
        """
        directory = _local_path(uri)
        if directory is not None:
            with self.errors("the run's artifacts cannot be written"):
                directory.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=directory).close()

    def end_killed(self, run_id: str) -> None:
        """End a run whose process is gone; one that has ended, or is not on this server, stays as it is."""
        from mlflow.exceptions import MlflowException

        with self.errors(), contextlib.suppress(MlflowException):
            if self._client.get_run(run_id).info.status == "RUNNING":
                self._client.set_terminated(run_id, "KILLED")

    def register(self, source: str | None, name: str, alias: str | None = None) -> Version:
        """Make a run's model a version of the registered model `name`.

        Registering the same run twice under one name gives the version that there is.

        Args:
            source: A run id, a `runs:/…` URI, or nothing for the latest finished run.
            name: The registered model; made if there is none.
            alias: An alias to point at the version.

        Raises:
            UsageError: If the name or the alias cannot be one.
            NotFoundError: If there is no such run.
            TrackingError: If the run holds no newsbert model, or the registry refuses.
        """
        from mlflow.exceptions import MlflowException

        check_names(name, alias)
        run = self._run(source)
        bundle = Bundle.read(self._fetch_run(run).path)
        model_id = run.data.tags[MODEL_ID_TAG]
        with self.errors():
            version = next(
                (
                    each
                    for each in self._versions(name)
                    if each.run_id == run.info.run_id and _model_id(each) == model_id
                ),
                None,
            )
            created = version is None
            if version is None:
                try:
                    self._client.create_registered_model(name)
                except MlflowException as error:
                    if error.error_code != "RESOURCE_ALREADY_EXISTS":
                        raise
                version = self._client.create_model_version(
                    name,
                    source=f"models:/{model_id}",
                    run_id=run.info.run_id,
                    model_id=model_id,
                    tags=_version_tags(run, bundle),
                    description=_describe(bundle),
                )
            if alias is not None:
                self._client.set_registered_model_alias(name, alias, version.version)
        return Version(name, str(version.version), run.info.run_id, created, alias)

    def locate(self, reference: str | None = None) -> Located:
        """Find a model's bundle, fetching it into the cache if the artifacts are not on this machine.

        Args:
            reference: `Name/2`, `Name@alias`, `Name` (its latest version), the same with `models:/` before it, a run
                id or `runs:/…`; nothing for the version that was registered last, or else the latest finished run.

        Raises:
            NotFoundError: If there is no such model, version, alias or run.
            TrackingError: If its artifacts cannot be had.
        """
        if reference is None:
            with self.errors():
                newest = max(self._versions(), key=lambda version: int(version.creation_timestamp), default=None)
            if newest is None:
                return self._fetch_run(self._run(None))
            reference = f"{newest.name}/{newest.version}"
        if reference.startswith("runs:/") or re.fullmatch(r"[0-9a-f]{32}", reference):
            return self._fetch_run(self._run(reference))
        version = self._version(reference)
        name, number, run_id = version.name, str(version.version), version.run_id or None
        path = self._fetch(f"{name}/{number}", _model_id(version), version.source, version.tags.get(DIGEST_TAG))
        revision = version.tags.get(REVISION_TAG) or self._revision(run_id)
        return Located(f"{name}/{number}", path, run_id, revision, number, name)

    def artifact_root(self) -> Path | None:
        """Where our experiment keeps its artifacts, if there is one and that is on this machine."""
        with self.errors():
            experiment = self._client.get_experiment_by_name(self.settings.experiment)
        return None if experiment is None else _local_path(experiment.artifact_location)

    def version_tags(self, name: str, version: str) -> dict[str, str]:
        """A version's tags.

        Raises:
            NotFoundError: If there is no such version.
        """
        return dict(self._version(f"{name}/{version}").tags)

    def tag_version(self, name: str, version: str, key: str, value: str) -> None:
        """Set a tag of a version.

        Raises:
            NotFoundError: If there is no such version.
            TrackingError: If the registry refuses.
        """
        number = str(self._version(f"{name}/{version}").version)
        with self.errors():
            self._client.set_model_version_tag(name, number, key, value)

    def add_artifact(self, name: str, version: str, file: Path) -> None:
        """Put a file beside those that a version's logged model has; one of the same name is replaced.

        Raises:
            NotFoundError: If there is no such version.
            TrackingError: If its files cannot be added to.
        """
        found = self._version(f"{name}/{version}")
        model_id = _model_id(found)
        if model_id is None:
            raise TrackingError(
                f"{name}/{version} was not registered from a logged model: {found.source}",
                f"newsbert register RUN_ID --model-name {name}",
            )
        with self.errors(f"{file.name} cannot be put beside {name}/{version}"):
            self._client.log_model_artifact(model_id, str(file))

    def _revision(self, run_id: str | None) -> str | None:
        """The git commit that MLflow recorded with a run; `None` if it did not, or the run is on another server."""
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_run(run_id).data.tags.get(MLFLOW_GIT_COMMIT) if run_id else None
        except MlflowException:
            return None

    def _version(self, reference: str) -> Any:
        from mlflow.exceptions import MlflowException

        match = _REFERENCE.fullmatch(reference)
        if match is None:
            raise UsageError(f"{reference!r} names no model", "write Name/2, Name@alias, models:/Name/2 or a directory")
        name, version, alias = match["name"], match["version"], match["alias"]
        with self.errors():
            known = self._versions(name)
        if not known:
            names = sorted({each.name for each in self._versions()})
            raise NotFoundError(
                f"there is no registered model {name!r} on {shown(self.settings.tracking_uri)}",
                f"there are: {', '.join(names)}" if names else f"newsbert register --model-name {name}",
            )
        if alias is not None:
            try:
                return self._client.get_model_version_by_alias(name, alias)
            except MlflowException as error:
                raise NotFoundError(
                    f"{name!r} has no alias {alias!r}", f"newsbert register --model-name {name} --alias {alias}"
                ) from error
        if version is None:
            return max(known, key=lambda each: int(each.version))
        found = next((each for each in known if str(each.version) == str(int(version))), None)
        if found is None:
            latest = max(int(each.version) for each in known)
            raise NotFoundError(f"there is no version {version} of {name!r}", f"the latest is {name}/{latest}")
        return found

    def _versions(self, name: str | None = None) -> list[Any]:
        """All versions of a registered model, or of all of them."""
        found: list[Any] = []
        token = None
        while True:
            page = self._client.search_model_versions(f"name = '{name}'" if name else None, page_token=token)
            found.extend(page)
            token = page.token
            if not token:
                return found

    def _run(self, source: str | None) -> "Run":
        """The run that is meant, which must hold a newsbert model."""
        from mlflow.exceptions import MlflowException

        if source is None:
            with self.errors():
                experiment = self._client.get_experiment_by_name(self.settings.experiment)
                runs = experiment and self._client.search_runs(
                    [experiment.experiment_id],
                    f"attributes.status = 'FINISHED' and tags.`{MODEL_ID_TAG}` LIKE '%'",
                    order_by=["attributes.end_time DESC"],
                    max_results=1,
                )
            if not runs:
                raise NotFoundError(
                    f"there is no finished training run in the experiment {self.settings.experiment!r} "
                    f"on {shown(self.settings.tracking_uri)}",
                    "newsbert train",
                )
            run: Run = runs[0]
            return run
        match = re.fullmatch(r"(?:runs:/)?(?P<run>[0-9a-f]{32})(?:/(?P<path>.*))?", source)
        if match is None:
            raise UsageError(f"{source!r} is no run", "give a run id of 32 hexadecimal digits, or runs:/RUN_ID/model")
        try:
            run = self._client.get_run(match["run"])
        except MlflowException as error:
            raise NotFoundError(
                f"there is no run {match['run']!r} on {shown(self.settings.tracking_uri)}",
                "give another run, or none for the latest finished one",
            ) from error
        if MODEL_ID_TAG not in run.data.tags or match["path"] not in {None, "", "model"}:
            artifact = f"{match['path'] or 'model'}"
            raise TrackingError(
                f"run {match['run']} is no newsbert model: its {artifact!r} has no {CONTRACT_FILE} "
                f"(the run's status is {run.info.status})",
                "register a run that `newsbert train` finished",
            )
        return run

    def _fetch_run(self, run: "Run") -> Located:
        model_id = run.data.tags[MODEL_ID_TAG]
        name = f"run {run.info.run_id}"
        path = self._fetch(name, model_id, f"models:/{model_id}", run.data.tags.get(DIGEST_TAG))
        return Located(name, path, run.info.run_id, run.data.tags.get(MLFLOW_GIT_COMMIT))

    def _fetch(self, name: str, model_id: str | None, source: str, digest: str | None) -> Path:
        """Return the bundle's directory of a logged model, from where it is or through the cache.

        Args:
            name: What to call it in errors.
            model_id: The logged model.
            source: Where its files are, if it has no id.
            digest: The bundle's digest that was recorded with the version or the run, if one was.

        Raises:
            ModelError: If its digest is not the recorded one.
            TrackingError: If there are no files, or not a bundle's.
        """
        digests = {digest} if digest else set()
        with self.errors():
            model = self._client.get_logged_model(model_id) if model_id else None
        if model is not None and DIGEST_TAG in model.tags:
            digests.add(model.tags[DIGEST_TAG])
        location = model.artifact_location if model is not None else source
        with self.errors(f"the files of {name} cannot be fetched"):
            path = self._local_or_cached(name, location, model_id or urllib.parse.quote(location, safe=""))
            found = sha256_of(path / CONTRACT_FILE)
        for recorded in digests - {found}:
            in_cache = config.cache_dir() in path.parents
            raise ModelError(
                f"{name} was altered after it was registered: its digest is {found[:12]}… and the registry says "
                f"{recorded[:12]}… ({path})",
                f"rm -r {shlex.quote(str(path))}" if in_cache else "train again, or put back what was trained",
            )
        return path

    def _local_or_cached(self, name: str, location: str, cache_key: str) -> Path:
        import mlflow

        local = _local_path(location)
        if local is not None and local.is_dir():
            bundle = local / mlflow_model.BUNDLE_SUBPATH
            if not (bundle / CONTRACT_FILE).is_file():
                raise TrackingError(f"{name} is no newsbert model: it has no {CONTRACT_FILE}", "newsbert train")
            return bundle
        cached = config.cache_dir() / "models" / cache_key
        if not cached.is_dir():
            cached.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=cached.parent))
            try:
                fetched = mlflow.artifacts.download_artifacts(
                    artifact_uri=f"{location.rstrip('/')}/{mlflow_model.BUNDLE_SUBPATH}", dst_path=str(partial)
                )
                if not (Path(fetched) / CONTRACT_FILE).is_file():
                    raise TrackingError(f"{name} is no newsbert model: it has no {CONTRACT_FILE}", "newsbert train")
                with contextlib.suppress(FileExistsError, OSError) if cached.is_dir() else contextlib.nullcontext():
                    Path(fetched).rename(cached)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return cached

    @contextlib.contextmanager
    def errors(self, what: str = "") -> Iterator[None]:
        """Turn MLflow's, the network's, the database's and the disk's errors into ours."""
        import requests
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # MLflow's, of its own workings
                yield
        except (MlflowException, SQLAlchemyError, requests.RequestException) as error:
            refused = f"the tracking server {shown(self.settings.tracking_uri)} refused"
            raise TrackingError(
                f"{what or refused}: {shown(_first_line(error))}", "check MLFLOW_TRACKING_URI and the server"
            ) from error
        except OSError as error:  # artifacts, where they are on this machine's disk
            raise TrackingError(
                f"{what or 'the tracking files cannot be used'}: {error}", "check the disk and its rights: df -h ."
            ) from error


def check_names(name: str, alias: str | None = None) -> None:
    """Refuse names that the registry would not take, before any work is done for them.

    Raises:
        UsageError: Naming what is wrong.
    """
    if not re.fullmatch(r"[^/:@%'\"\x00-\x1f]{1,250}", name) or not name.strip():
        raise UsageError(f"{name!r} cannot name a registered model", "use a name without / : @ % and quotes")
    if alias is not None and (
        not re.fullmatch(r"[A-Za-z0-9_-]{1,250}", alias) or re.fullmatch(r"latest|[vV][0-9]+", alias)
    ):
        raise UsageError(f"{alias!r} cannot be an alias", "use letters, digits, - and _; not 'latest' nor 'v1'")


def shown(uri: str) -> str:
    """A URI as it may be printed: without a password."""
    return re.sub(r"//[^/@\s]*@", "//***@", uri)


def _without_user(uri: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//", uri)


def _check_reachable(uri: str) -> None:
    """Ask a server for its health before MLflow does, which would retry for minutes.

    Raises:
        TrackingError: If it does not answer.
    """
    if not uri.startswith(("http://", "https://")):
        return
    try:
        with loopback.urlopen(f"{_without_user(uri).rstrip('/')}/health", timeout=_REACH_TIMEOUT_S):
            return
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code < 500:
            return  # it answers; MLflow itself will say what it refuses
        reason = getattr(error, "reason", error)
        raise TrackingError(
            f"the tracking server {shown(uri)} cannot be reached: {reason}",
            f"start it, set MLFLOW_TRACKING_URI, or unset it to use {DEFAULT_TRACKING_URI} here",
        ) from error


def _local_path(uri: str) -> Path | None:
    """The path of an artifact location on this machine, or `None` if it is elsewhere."""
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme not in {"", "file"} or parts.netloc not in {"", "localhost"}:
        return None
    return Path(urllib.parse.unquote(parts.path))


def _model_id(version: Any) -> str | None:
    """The logged model behind a version; some stores tell it in the source only."""
    match = re.fullmatch(r"models:/(m-[0-9a-f]+)/?", version.source or "")
    return version.model_id or (match[1] if match else None)


def _version_tags(run: "Run", bundle: Bundle) -> dict[str, str]:
    """Where a version comes from: data, code and bundle."""
    tags = {
        "newsbert.version": bundle.contract.newsbert_version,
        "newsbert.data": str(bundle.contract.data["name"]),
        "newsbert.data_digest": str(bundle.contract.data["sha256"]),
        "newsbert.base_model": bundle.contract.base_model["name"],
        DIGEST_TAG: bundle.digest,
    }
    revision = run.data.tags.get(MLFLOW_GIT_COMMIT)
    return {**tags, REVISION_TAG: revision} if revision else tags


def _describe(bundle: Bundle) -> str:
    contract = bundle.contract
    return (
        f"News classifier ({', '.join(contract.labels)}), {contract.base_model['name']} fine-tuned on "
        f"{contract.data['rows']['train']} rows of {contract.data['name']}. "
        f"On {contract.data['rows']['test']} test rows: accuracy {contract.metrics['accuracy']:.4f}, "
        f"macro F1 {contract.metrics['f1_macro']:.4f}."
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
