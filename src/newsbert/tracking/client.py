"""MLflow runs and the model registry: reaching them, what becomes a version, and what they know of it.

With `run_log.py`, `mlflow_model.py` and `mlflow_deploy.py` the only importers of mlflow.
"""

import contextlib
import functools
import logging
import re
import shlex
import tempfile
import uuid
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newsbert.bundle.bundle import Bundle
from newsbert.bundle.contract import SIGNATURE_FILE
from newsbert.core import environment, temporary, uris
from newsbert.core.identifiers import (
    is_model_name,
    parse_alias,
    parse_experiment_id,
    parse_model_name,
    parse_run_id,
    parse_version,
)
from newsbert.core.settings import TrackingSettings
from newsbert.errors import ModelError, NewsbertError, TrackingError
from newsbert.tracking import (
    artifact_download,
    artifact_locations,
    artifact_store,
    artifacts,
    flavor,
    foreign_errors,
    lookup,
    run_marks,
    sqlite,
    tracking_uri,
)
from newsbert.tracking.artifacts import MLFLOW_GIT_COMMIT, REVISION_TAG
from newsbert.tracking.runs import DATA_DIGEST_TAG, DIGEST_TAG, MODEL_ID_TAG, RunLog

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion

_LAST_METRICS_S = 3.0
_KIND, _TRAINING = "mlflow.experimentKind", "custom_model_development"
"""The tag by which MLflow's pages know that an experiment is of trainings, and not of prompts and traces."""


@dataclass(frozen=True)
class Version:
    """A version in the registry.

    Attributes:
        name: The registered model.
        version: Its number.
        run_id: The run that it was made of.
        created: Whether it is new: false if the run's model was one before.
        alias: The alias that points at it, if one was set.
        choice: Which run was chosen and whose it is, where that was left open.
        signed_by: The SHA-256 of the public key by which it was signed, if it was signed now.
    """

    name: str
    version: str
    run_id: str
    created: bool = False
    alias: str | None = None
    choice: str | None = None
    signed_by: str | None = None

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


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
        tracking_uri.check_reachable(settings.tracking_uri)
        environment.quiet_mlflow()
        import mlflow

        for name in ("mlflow", "alembic", "azure", "botocore", "google", "urllib3"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # its errors reach the user as ours
        mlflow.set_tracking_uri(settings.tracking_uri)
        mlflow.set_registry_uri(settings.registry_uri or "")  # empty: the tracking server, whichever is set later
        with contextlib.ExitStack() as files:
            for uri in dict.fromkeys((settings.tracking_uri, settings.registry_uri or settings.tracking_uri)):
                file = sqlite.path_of(uri)
                if file is not None:
                    make = functools.partial(self._make_database, uri) if create else None
                    files.enter_context(sqlite.ready(file, make))
            with self.errors():
                self._client = mlflow.MlflowClient()
                self._client.search_experiments(max_results=1)
        run_marks.end_killed(self.marks, self._end_marked)

    @property
    def marks(self) -> str:
        """What `run_marks` knows this server and our experiment by."""
        return f"{self.settings.tracking_uri}\n{self.settings.experiment}"

    def _end_marked(self, mark: str) -> None:
        for run in self.runs(f"attributes.status = 'RUNNING' and tags.`{run_marks.TAG}` = '{mark}'", 2):
            self.end_killed(run.info.run_id)

    def _make_database(self, uri: str, file: Path) -> None:
        """Let MLflow make its tables in `file` as it would in the database of `uri`."""
        import mlflow
        from sqlalchemy.engine import make_url

        with self.errors():
            mlflow.MlflowClient(
                make_url(uri).set(database=str(file)).render_as_string(hide_password=False)
            ).search_experiments(max_results=1)

    @contextlib.contextmanager
    def run(
        self,
        run_id: str | None = None,
        pending: Sequence[Sequence[Any]] = (),
        *,
        name: str | None = None,
        system_metrics: bool = True,
    ) -> Iterator[RunLog]:
        """Start a run in our experiment; it ends as FINISHED, FAILED, or KILLED when interrupted.

        Args:
            run_id: A run to go on with instead.
            pending: Metrics that could not be delivered to it before.
            name: Its name; one of MLflow's if not given.
            system_metrics: Whether to log what the machine does meanwhile.

        Raises:
            TrackingError: If the server refuses, or has no such run.
        """
        import mlflow
        from mlflow.system_metrics import set_system_metrics_sampling_interval

        with run_marks.hold(self.marks) as mark:
            with self.errors():
                # Under `mlflow run`, MLflow has made the run already and says so in the environment.
                if run_id is None and environment.mlflow_run_id() is None:
                    self._make_experiment()
                    experiment = mlflow.set_experiment(self.settings.experiment)
                    if _KIND not in experiment.tags:
                        mlflow.set_experiment_tag(_KIND, _TRAINING)
                set_system_metrics_sampling_interval(5)
                active = mlflow.start_run(
                    run_id, run_name=name, tags={run_marks.TAG: mark}, log_system_metrics=system_metrics
                )
            try:
                parse_run_id(active.info.run_id, f"a run's id on {self.where}")
                self._parse_artifacts(active.info.artifact_uri)
            except NewsbertError:
                with contextlib.suppress(Exception):
                    mlflow.end_run("FAILED")
                raise
            status = "FAILED"
            location = active.info.artifact_uri
            log = RunLog(active.info.run_id, self._client, functools.partial(self.errors, store=location), pending)
            try:
                self._check_artifacts(location)
                if run_id is not None:
                    log.resume()
                yield log
                status = "FINISHED"
            except KeyboardInterrupt:
                status = "KILLED"
                raise
            finally:
                log.flush(_LAST_METRICS_S)
                log.end()
                with contextlib.suppress(Exception) if status != "FINISHED" else self.errors():
                    mlflow.end_run(status)

    def _parse_artifacts(self, uri: object) -> str:
        return artifact_locations.parse(uri, self.settings.tracking_uri, "the run's artifact location")

    def _make_experiment(self) -> None:
        """Make our experiment where MLflow's way would put its artifacts into another directory.

        With a database on this machine MLflow keeps artifacts in `mlruns` of the working directory, whose path it then
        reads as a URL: in `a%20b` it writes to `a b`.
        """
        from mlflow.exceptions import MlflowException

        name = self.settings.experiment
        if sqlite.path_of(self.settings.tracking_uri) is None or not re.search("[%?#;]", str(Path.cwd())):
            return
        if self._client.get_experiment_by_name(name) is None:
            location = uris.as_uri(Path("mlruns", uuid.uuid4().hex[:12]))
            with contextlib.suppress(MlflowException):  # another process has made it meanwhile
                self._client.create_experiment(name, artifact_location=location)

    def _check_artifacts(self, uri: str) -> None:
        """Find out before any work whether artifacts can be written, by writing one.

        Raises:
            TrackingError: If not.
            MissingExtraError: If the client of the store is not installed.
        """
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        with self.errors("the run's artifacts cannot be written", uri):
            directory = artifacts.local_path(uri)
            if directory is not None:
                directory.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=directory).close()
            else:
                artifact_store.check(uri, functools.partial(get_artifact_repository, uri), delete=False)

    def create_run(self, tags: dict[str, str]) -> str:
        """Make a run for another process, which gets its id, as `mlflow run` does."""
        import mlflow

        with self.errors():
            self._make_experiment()
            experiment = mlflow.set_experiment(self.settings.experiment)
            run = self._client.create_run(experiment.experiment_id, tags=tags)
        return parse_run_id(run.info.run_id, f"a new run's id on {self.where}")

    def experiment_of(self, run_id: str) -> str:
        """Return the name of the experiment that a run is in.

        Raises:
            TrackingError: If the server has no such run.
        """
        with self.errors():
            experiment: str = self._client.get_experiment(self._client.get_run(run_id).info.experiment_id).name
        return experiment

    def tag_run(self, run_id: str, key: str, value: str) -> None:
        """Set a tag of a run."""
        with self.errors():
            self._client.set_tag(run_id, key, value)

    def end_killed(self, run_id: str) -> None:
        """End a run whose process is gone; one that has ended, or is not on this server, stays as it is."""
        from mlflow.exceptions import MlflowException

        with self.errors(), contextlib.suppress(MlflowException):
            if self._client.get_run(run_id).info.status == "RUNNING":
                self._client.set_terminated(run_id, "KILLED")

    def register(
        self,
        source: str | None,
        name: str,
        alias: str | None = None,
        *,
        sign: Path | None = None,
        digest: str | None = None,
    ) -> Version:
        """Make a run's model a version of the registered model `name`.

        Registering the same run twice under one name gives the version that there is.

        Args:
            source: A run id, a `runs:/…` URI, or nothing for the latest finished run.
            name: The registered model; made if there is none.
            alias: An alias to point at the version.
            sign: The private key to sign the model with.
            digest: The bundle that the run must hold, by its digest, where that is known here.

        Raises:
            UsageError: If the name or the alias cannot be one, or the key cannot be used.
            NotFoundError: If there is no such run.
            ModelError: If the run holds another bundle, or it was altered.
            TrackingError: If the run holds no newsbert model, or the registry refuses.
        """
        parse_model_name(name)
        if alias is not None:
            parse_alias(alias)
        run = lookup.find_run(self, source)
        # Not a load: the registry may hold what nobody has signed yet.
        located = artifacts.fetch_run(self, run, check_signature=False)
        bundle = Bundle.read_unsigned(located.path)
        assert located.model_id is not None
        if digest is not None and bundle.digest != digest:
            raise ModelError(
                f"run {run.info.run_id} holds another bundle than the one that was logged to it",
                f"check who runs {self.where}",
            )
        signed_by = None if sign is None else self._sign(bundle, located.model_id, sign)
        version = self._version_of(name, run.info.run_id, located.model_id)
        created = version is None
        if version is None:
            version, created = self._create_version(name, run, located.model_id, bundle)
        with self.errors():
            if alias is not None:
                self._client.set_registered_model_alias(name, alias, version.version)
        choice = lookup.describe_run(run) if source is None else None
        return Version(name, str(version.version), run.info.run_id, created, alias, choice, signed_by)

    def _sign(self, bundle: Bundle, model_id: str, key: Path) -> str:
        """Put a signature beside the files of a logged model's bundle, and return the SHA-256 of the public key."""
        signature, signed_by = bundle.sign(key)
        with temporary.directory() as directory:
            file = directory / SIGNATURE_FILE
            file.write_bytes(signature)
            with self.errors("the signature cannot be logged"):
                self._client.log_model_artifact(model_id, str(file), flavor.BUNDLE_SUBPATH)
        return signed_by

    def _version_of(self, name: str, run_id: str, model_id: str) -> "ModelVersion | None":
        """Return the first version of a registered model that was made of a run's model."""
        versions = [
            version
            for version in self.versions(name)
            if version.run_id == run_id and artifacts.model_id(version) == model_id
        ]
        return min(versions, key=lambda version: int(version.version), default=None)

    def _create_version(self, name: str, run: "Run", model_id: str, bundle: Bundle) -> "tuple[ModelVersion, bool]":
        """Make a version, unless another process makes one of the same run meanwhile: the first one stays.

        Returns:
            The version, and whether it is the one that was made here.
        """
        from mlflow.exceptions import MlflowException

        with self.errors():
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
                description=bundle.contract.description,
            )
        first = self._version_of(name, run.info.run_id, model_id) or version
        created = int(first.version) == int(version.version)
        if not created:
            with self.errors():
                self._client.delete_model_version(name, str(version.version))
        return first, created

    def artifact_root(self) -> Path | None:
        """Where our experiment keeps its artifacts, if there is one and that is on this machine."""
        with self.errors():
            experiment = self._client.get_experiment_by_name(self.settings.experiment)
        return None if experiment is None else artifacts.local_path(experiment.artifact_location)

    def version_tags(self, name: str, version: str) -> dict[str, str]:
        """A version's tags.

        Raises:
            NotFoundError: If there is no such version.
        """
        return dict(lookup.find_version(self, f"{name}/{version}").tags)

    def tag_version(self, name: str, version: str, key: str, value: str) -> None:
        """Set a tag of a version.

        Raises:
            NotFoundError: If there is no such version.
            TrackingError: If the registry refuses.
        """
        number = str(lookup.find_version(self, f"{name}/{version}").version)
        with self.errors():
            self._client.set_model_version_tag(name, number, key, value)

    def alias(self, name: str, version: str, alias: str) -> None:
        """Call a version by another name, which another version may have had.

        Raises:
            UsageError: If the alias cannot be one.
            NotFoundError: If there is no such version.
            TrackingError: If the registry refuses.
        """
        parse_model_name(name)
        parse_alias(alias)
        number = str(lookup.find_version(self, f"{name}/{version}").version)
        with self.errors():
            self._client.set_registered_model_alias(name, alias, number)

    def add_artifact(self, name: str, version: str, file: Path) -> None:
        """Put a file beside those that a version's logged model has; one of the same name is replaced.

        Raises:
            NotFoundError: If there is no such version.
            TrackingError: If its files cannot be added to.
        """
        found = lookup.find_version(self, f"{name}/{version}")
        model_id = artifacts.model_id(found)
        if model_id is None:
            raise TrackingError(
                f"{name}/{version} was not registered from a logged model: {found.source}",
                f"newsbert register RUN_ID --model-name {shlex.quote(name)}",
            )
        with self.errors(f"{file.name} cannot be put beside {name}/{version}"):
            self._client.log_model_artifact(model_id, str(file))

    @property
    def where(self) -> str:
        """The tracking server, as it may be printed."""
        return uris.mask_credentials(self.settings.tracking_uri)

    def latest_run(self) -> "Run | None":
        """The latest finished run of our experiment that holds a newsbert model."""
        condition = f"attributes.status = 'FINISHED' and tags.`{MODEL_ID_TAG}` LIKE '%'"
        return next(iter(self.runs(condition, 1, "end_time")), None)

    def runs(self, condition: str, most: int, order: str = "start_time") -> "list[Run]":
        """Runs of our experiment, the latest first.

        Args:
            condition: Which, in MLflow's language of filters.
            most: How many at most.
            order: The time that tells which is later.
        """
        with self.errors():
            experiment = self._client.get_experiment_by_name(self.settings.experiment)
            if experiment is None:
                return []
            ids, order_by = [experiment.experiment_id], [f"attributes.{order} DESC"]
            runs = list(self._client.search_runs(ids, condition, max_results=most, order_by=order_by))
        for run in runs:
            parse_run_id(run.info.run_id, f"a run's id on {self.where}")
        return runs

    def run_of(self, digest: str) -> str | None:
        """The id of the latest finished run of our experiment that holds the bundle with this digest."""
        runs = self.runs(f"attributes.status = 'FINISHED' and tags.`{DIGEST_TAG}` = '{digest}'", 1)
        return str(runs[0].info.run_id) if runs else None

    def get_run(self, run_id: str) -> "Run | None":
        """Return a run, if this server has it.

        Raises:
            TrackingError: If that is no run's id, or the server answers with another run.
        """
        from mlflow.exceptions import MlflowException

        with self.errors():
            try:
                run = self._client.get_run(parse_run_id(run_id, "the run"))
            except MlflowException:
                return None
        if run.info.run_id != run_id:
            raise TrackingError(f"{self.where} answers with another run than {run_id}", "check who runs that server")
        return run

    def page_of(self, run_id: str) -> str | None:
        """The page that shows a run, if this is a server that has it and has pages."""
        run = self.get_run(run_id) if self.settings.tracking_uri.startswith(("http://", "https://")) else None
        if run is None:
            return None
        base = uris.without_credentials(self.settings.tracking_uri).rstrip("/")
        return f"{base}/#/experiments/{parse_experiment_id(run.info.experiment_id)}/runs/{run_id}"

    def versions(self, name: str | None = None) -> "list[ModelVersion]":
        """Return all versions of a registered model, or of all of them.

        Versions whose names, numbers or runs newsbert does not take are left out: others may use the registry, too.

        Raises:
            UsageError: If the name cannot be one.
            TrackingError: If the registry refuses.
        """
        if name is not None:
            parse_model_name(name)
        found: list[ModelVersion] = []
        token = None
        with self.errors():
            while True:
                page = self._client.search_model_versions(f"name = '{name}'" if name else None, page_token=token)
                found.extend(version for version in page if _is_readable(version))
                token = page.token
                if not token:
                    return found

    def aliased(self, name: str, alias: str) -> "ModelVersion | None":
        """Return the version of a registered model that an alias points at, if there is such an alias.

        Raises:
            TrackingError: If the server answers with what is no version of that model.
        """
        from mlflow.exceptions import MlflowException

        with self.errors():
            try:
                found = self._client.get_model_version_by_alias(name, alias)
            except MlflowException:
                return None
        if not _is_readable(found) or found.name != name:
            raise TrackingError(
                f"{self.where} answers with no version of {name!r} for its alias {alias}", "check who runs that server"
            )
        return found

    def aliases(self, name: str) -> dict[str, str]:
        """The aliases of a registered model, with the version that each points at."""
        with self.errors():
            return {alias: str(version) for alias, version in self._client.get_registered_model(name).aliases.items()}

    def logged_model(self, model_id: str) -> "LoggedModel":
        """A logged model.

        Raises:
            TrackingError: If there is none.
        """
        with self.errors():
            return self._client.get_logged_model(model_id)

    def download_files(self, location: str, names: Sequence[str], directory: Path, most: int) -> None:
        """Fetch files by name into a directory; MLflow's errors are its own.

        Not by `download_artifacts`, which writes whatever names a server lists.

        Args:
            location: A URI that `identifiers.parse_location` let through.
            names: Names that `identifiers.is_file_name` lets through.
            directory: Where they are written.
            most: How many bytes they may have together.

        Raises:
            TrackingError: If they have more.
        """
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        artifact_store.check_credentials(location)
        repository = get_artifact_repository(location)
        artifact_download.fetch(repository, names, directory, most)

    def has_file(self, location: str, name: str) -> bool:
        """Return whether there is such a file at a location, as of `download_files`; MLflow's errors are its own."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return any(file.path == name for file in get_artifact_repository(location).list_artifacts())

    def round_trip(self, name: str) -> str:
        """Make a run of our experiment, give it a file, read that back, and delete both; say what server it was.

        Args:
            name: The run's.

        Raises:
            TrackingError: If one of these is refused, or the file comes back otherwise.
        """
        import mlflow
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        with self.errors():
            self._make_experiment()
            experiment = self._client.get_experiment_by_name(self.settings.experiment)
            made = experiment.experiment_id if experiment else self._client.create_experiment(self.settings.experiment)
            run = self._client.create_run(made, run_name=name)
            parse_run_id(run.info.run_id, f"a new run's id on {self.where}")
            try:
                uri = self._parse_artifacts(run.info.artifact_uri)
                with self.errors(store=uri):
                    artifact_store.check(uri, functools.partial(get_artifact_repository, uri))
            finally:
                self._client.delete_run(run.info.run_id)
        version = tracking_uri.server_version(self.settings.tracking_uri)
        return f"MLflow {version}" if version else f"MLflow {mlflow.__version__} here"

    @contextlib.contextmanager
    def errors(self, what: str = "", store: str | None = None) -> Iterator[None]:
        """Turn the errors of MLflow, the network, the database, the disk and an artifact store into ours.

        Args:
            what: What could not be done, to begin the message with.
            store: Where the artifacts are, if they are meant.
        """
        try:
            with warnings.catch_warnings(), artifact_locations.guarded(self.settings.tracking_uri):
                warnings.simplefilter("ignore")  # MLflow's, of its own workings
                yield
        except Exception as error:
            found = foreign_errors.translate(error, what, self.settings.tracking_uri, store)
            if found is None or found is error:
                raise
            raise found from error


def _is_readable(version: "ModelVersion") -> bool:
    """Return whether what a registry says of a version can stand in paths, filters and commands."""
    try:
        parse_version(version.version, "version")
        if version.run_id:
            parse_run_id(version.run_id, "run")
    except TrackingError:
        return False
    return is_model_name(version.name)


def _version_tags(run: "Run", bundle: Bundle) -> dict[str, str]:
    """Where a version comes from: data, code and bundle."""
    tags = {
        "newsbert.version": bundle.contract.newsbert_version,
        "newsbert.data": str(bundle.contract.data["name"]),
        DATA_DIGEST_TAG: str(bundle.contract.data["sha256"]),
        "newsbert.base_model": bundle.contract.base_model["name"],
        DIGEST_TAG: bundle.digest,
    }
    revision = run.data.tags.get(MLFLOW_GIT_COMMIT)
    return {**tags, REVISION_TAG: revision} if revision else tags
