"""Client of a tracking server: connect to it and query its runs, versions and logged models."""

import contextlib
import functools
import logging
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from newsbert.core import environment, uris
from newsbert.core.identifiers import (
    is_model_name,
    parse_experiment_id,
    parse_model_name,
    parse_run_id,
    parse_version,
)
from newsbert.core.settings import TrackingSettings
from newsbert.errors import TrackingError
from newsbert.tracking import (
    artifact_download,
    artifact_locations,
    artifact_store,
    foreign_errors,
    name_cache,
    run_marks,
    sqlite,
    tracking_uri,
)
from newsbert.tracking.runs import DIGEST_TAG, MODEL_ID_TAG

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion


class TrackingClient:
    """Connection to a tracking server.

    Args:
        settings: Its address, and the experiment to use.
        create: Whether to create a missing database file: training does, readers do not.

    Raises:
        NotFoundError: If it is a missing database file.
        TrackingError: If it cannot be reached or used.
    """

    def __init__(self, settings: TrackingSettings, *, create: bool = False) -> None:
        self.settings = settings
        tracking_uri.check_reachable(settings.tracking_uri)
        environment.silence_mlflow()
        import mlflow

        for name in ("mlflow", "alembic", "azure", "botocore", "google", "urllib3"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # newsbert reports their errors itself
        mlflow.set_tracking_uri(settings.tracking_uri)
        mlflow.set_registry_uri(settings.registry_uri or "")  # empty: the tracking server, even if it is set later
        with contextlib.ExitStack() as files:
            for uri in dict.fromkeys((settings.tracking_uri, settings.registry_uri or settings.tracking_uri)):
                file = sqlite.path_of(uri)
                if file is not None:
                    make = functools.partial(self._make_database, uri) if create else None
                    files.enter_context(sqlite.ready(file, make))
            with self.errors():
                self.client = mlflow.MlflowClient()
                self.client.search_experiments(max_results=1)
        run_marks.end_killed(self.marks, self._end_run_with_mark)

    @property
    def marks(self) -> str:
        """The key by which `run_marks` identifies this server and experiment."""
        return f"{self.settings.tracking_uri}\n{self.settings.experiment}"

    def _end_run_with_mark(self, mark: str) -> None:
        for run in self.runs(f"attributes.status = 'RUNNING' and tags.`{run_marks.TAG}` = '{mark}'", 2):
            self.end_killed(run.info.run_id)

    def _make_database(self, uri: str, file: Path) -> None:
        """Create MLflow's tables in `file`, as MLflow would in the database of `uri`."""
        import mlflow
        from sqlalchemy.engine import make_url

        with self.errors():
            mlflow.MlflowClient(
                make_url(uri).set(database=str(file)).render_as_string(hide_password=False)
            ).search_experiments(max_results=1)

    def experiment_of(self, run_id: str) -> str:
        """Return the name of a run's experiment.

        Raises:
            TrackingError: If the server has no such run.
        """
        with self.errors():
            experiment: str = self.client.get_experiment(self.client.get_run(run_id).info.experiment_id).name
        return experiment

    def tag_run(self, run_id: str, key: str, value: str) -> None:
        """Set a tag of a run."""
        with self.errors():
            self.client.set_tag(run_id, key, value)

    def end_killed(self, run_id: str) -> None:
        """End a run whose process is gone; ignore a run that has ended or is not on this server."""
        from mlflow.exceptions import MlflowException

        with self.errors(), contextlib.suppress(MlflowException):
            if self.client.get_run(run_id).info.status == "RUNNING":
                self.client.set_terminated(run_id, "KILLED")

    def artifact_root(self) -> Path | None:
        """Return the artifact directory of the experiment, if both exist and it is on this machine."""
        with self.errors():
            experiment = self.client.get_experiment_by_name(self.settings.experiment)
        return None if experiment is None else uris.local_path(experiment.artifact_location)

    @property
    def where(self) -> str:
        """The tracking URI with its credentials masked."""
        return uris.mask_credentials(self.settings.tracking_uri)

    def latest_run(self) -> "Run | None":
        """Return the latest finished run of the experiment that holds a newsbert model."""
        condition = f"attributes.status = 'FINISHED' and tags.`{MODEL_ID_TAG}` LIKE '%'"
        return next(iter(self.runs(condition, 1, "end_time")), None)

    def runs(self, condition: str, most: int, order: str = "start_time") -> "list[Run]":
        """Return runs of the experiment, the latest first.

        Args:
            condition: A filter in MLflow's syntax.
            most: The maximum number of runs.
            order: The timestamp to sort by.
        """
        with self.errors():
            experiment = self.client.get_experiment_by_name(self.settings.experiment)
            if experiment is None:
                return []
            ids, order_by = [experiment.experiment_id], [f"attributes.{order} DESC"]
            runs = list(self.client.search_runs(ids, condition, max_results=most, order_by=order_by))
        for run in runs:
            parse_run_id(run.info.run_id, f"a run's id on {self.where}")
        name_cache.add("runs", self.settings, {run.info.run_id: run.info.start_time or 0 for run in runs})
        return runs

    def run_of(self, digest: str) -> str | None:
        """Return the id of the latest finished run of the experiment that holds the bundle with this digest."""
        runs = self.runs(f"attributes.status = 'FINISHED' and tags.`{DIGEST_TAG}` = '{digest}'", 1)
        return str(runs[0].info.run_id) if runs else None

    def get_run(self, run_id: str) -> "Run | None":
        """Return a run, if this server has it.

        Raises:
            TrackingError: If the id is invalid, or the server answers with another run.
        """
        from mlflow.exceptions import MlflowException

        with self.errors():
            try:
                run = self.client.get_run(parse_run_id(run_id, "the run"))
            except MlflowException:
                return None
        if run.info.run_id != run_id:
            raise TrackingError(f"{self.where} answers with another run than {run_id}", "check who runs that server")
        return run

    def page_of(self, run_id: str) -> str | None:
        """Return the URL of a run's page, if this is an HTTP server that has the run."""
        run = self.get_run(run_id) if self.settings.tracking_uri.startswith(("http://", "https://")) else None
        if run is None:
            return None
        base = uris.without_credentials(self.settings.tracking_uri).rstrip("/")
        return f"{base}/#/experiments/{parse_experiment_id(run.info.experiment_id)}/runs/{run_id}"

    def versions(self, name: str | None = None) -> "list[ModelVersion]":
        """Return all versions of a registered model, or of all registered models.

        Versions whose names, numbers or runs are invalid for newsbert are left out: others may use the registry, too.

        Raises:
            UsageError: If the name is invalid.
            TrackingError: If the registry refuses.
        """
        if name is not None:
            parse_model_name(name)
        versions: list[ModelVersion] = []
        token = None
        with self.errors():
            while True:
                page = self.client.search_model_versions(f"name = '{name}'" if name else None, page_token=token)
                versions.extend(version for version in page if _is_readable(version))
                token = page.token
                if not token:
                    break
        times = {f"{version.name}/{version.version}": version.creation_timestamp for version in versions}
        name_cache.add("models", self.settings, times)
        return versions

    def aliased(self, name: str, alias: str) -> "ModelVersion | None":
        """Return the version of a registered model that an alias points at, if there is such an alias.

        Raises:
            TrackingError: If the answer is no version of that model.
        """
        from mlflow.exceptions import MlflowException

        with self.errors():
            try:
                version = self.client.get_model_version_by_alias(name, alias)
            except MlflowException:
                return None
        if not _is_readable(version) or version.name != name:
            raise TrackingError(
                f"{self.where} answers with no version of {name!r} for its alias {alias}", "check who runs that server"
            )
        self._add_aliases(name, [alias])
        return version

    def aliases(self, name: str) -> dict[str, str]:
        """Return the aliases of a registered model, with the versions that they point at."""
        with self.errors():
            model = self.client.get_registered_model(name)
        self._add_aliases(name, model.aliases)
        return {alias: str(version) for alias, version in model.aliases.items()}

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias at a version, also if it pointed at another one before."""
        with self.errors():
            self.client.set_registered_model_alias(name, alias, version)
        self._add_aliases(name, [alias])

    def _add_aliases(self, name: str, aliases: Iterable[str]) -> None:
        now = int(time.time() * 1000)
        name_cache.add("models", self.settings, {f"{name}@{alias}": now for alias in aliases})

    def logged_model(self, model_id: str) -> "LoggedModel":
        """Return a logged model.

        Raises:
            TrackingError: If there is none.
        """
        with self.errors():
            return self.client.get_logged_model(model_id)

    def download_files(self, location: str, names: Sequence[str], directory: Path, most: int) -> None:
        """Fetch files by name into a directory, without translating MLflow's errors.

        `download_artifacts` is not used: it writes any name that a server lists.

        Args:
            location: A URI that `identifiers.parse_location` has accepted.
            names: Names that `identifiers.is_file_name` accepts.
            directory: The target directory.
            most: The maximum of their total size in bytes.

        Raises:
            TrackingError: If they are larger.
        """
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        artifact_store.check_credentials(location)
        repository = get_artifact_repository(location)
        artifact_download.fetch(repository, names, directory, most)

    def has_file(self, location: str, name: str) -> bool:
        """Return whether a location, as for `download_files`, has a file; MLflow's errors are not translated."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return any(file.path == name for file in get_artifact_repository(location).list_artifacts())

    @contextlib.contextmanager
    def errors(self, what: str = "", store: str | None = None) -> Iterator[None]:
        """Translate the errors of MLflow, the network, the database, the disk and an artifact store.

        Args:
            what: The failed action, which begins the message.
            store: The location of the artifacts, if the action concerns them.
        """
        try:
            with warnings.catch_warnings(), artifact_locations.guarded(self.settings.tracking_uri):
                warnings.simplefilter("ignore")  # MLflow's internal warnings
                yield
        except Exception as error:
            translated = foreign_errors.translate(error, what, self.settings.tracking_uri, store)
            if translated is None or translated is error:
                raise
            raise translated from error


def _is_readable(version: "ModelVersion") -> bool:
    """Return whether a version's name, number and run are safe in paths, filters and commands."""
    try:
        parse_version(version.version, "version")
        if version.run_id:
            parse_run_id(version.run_id, "run")
    except TrackingError:
        return False
    return is_model_name(version.name)
