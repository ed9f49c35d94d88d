"""Runs of the configured experiment: start them, and check that their artifacts can be written."""

import contextlib
import functools
import re
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newsbert.core import environment, uris
from newsbert.core.identifiers import (
    parse_run_id,
)
from newsbert.errors import NewsbertError
from newsbert.tracking import (
    artifact_locations,
    artifact_store,
    name_cache,
    run_marks,
    sqlite,
    tracking_uri,
)
from newsbert.tracking.runs import RunLogger

if TYPE_CHECKING:
    from newsbert.tracking.client import TrackingClient

    pass

_LAST_METRICS_S = 3.0
_KIND_TAG, _TRAINING_KIND = "mlflow.experimentKind", "custom_model_development"
"""Tag and value by which MLflow's pages show an experiment as training, not as prompts and traces."""


@contextlib.contextmanager
def start_run(
    tracker: "TrackingClient",
    run_id: str | None = None,
    pending: Sequence[Sequence[Any]] = (),
    *,
    name: str | None = None,
    system_metrics: bool = True,
) -> Iterator[RunLogger]:
    """Start a run in the experiment; it ends as FINISHED, FAILED, or KILLED when interrupted.

    Args:
        tracker: The tracking server.
        run_id: A run to resume instead.
        pending: Metrics that could not be delivered to it before.
        name: Its name; by default, MLflow chooses one.
        system_metrics: Whether to log system metrics.

    Raises:
        TrackingError: If the server refuses, or has no such run.
    """
    import mlflow
    from mlflow.system_metrics import set_system_metrics_sampling_interval

    with run_marks.hold(tracker.marks) as mark:
        with tracker.errors():
            # Under `mlflow run`, MLflow has created the run already and passes its id in the environment.
            if run_id is None and environment.mlflow_run_id() is None:
                _make_experiment(tracker)
                experiment = mlflow.set_experiment(tracker.settings.experiment)
                if _KIND_TAG not in experiment.tags:
                    mlflow.set_experiment_tag(_KIND_TAG, _TRAINING_KIND)
            set_system_metrics_sampling_interval(5)
            active = mlflow.start_run(
                run_id, run_name=name, tags={run_marks.TAG: mark}, log_system_metrics=system_metrics
            )
        try:
            parse_run_id(active.info.run_id, f"a run's id on {tracker.where}")
            _parse_artifacts(tracker, active.info.artifact_uri)
        except NewsbertError:
            with contextlib.suppress(Exception):
                mlflow.end_run("FAILED")
            raise
        name_cache.add("runs", tracker.settings, {active.info.run_id: active.info.start_time or 0})
        status = "FAILED"
        location = active.info.artifact_uri
        log = RunLogger(active.info.run_id, tracker.client, functools.partial(tracker.errors, store=location), pending)
        try:
            _check_artifacts(tracker, location)
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
            with contextlib.suppress(Exception) if status != "FINISHED" else tracker.errors():
                mlflow.end_run(status)


def _parse_artifacts(tracker: "TrackingClient", uri: object) -> str:
    return artifact_locations.parse(uri, tracker.settings.tracking_uri, "the run's artifact location")


def _make_experiment(tracker: "TrackingClient") -> None:
    """Create the experiment if MLflow would put its artifacts into another directory.

    With a database on this machine, MLflow stores artifacts in `mlruns` of the working directory. It reads that path
    as a URL: in `a%20b` it writes to `a b`.
    """
    from mlflow.exceptions import MlflowException

    name = tracker.settings.experiment
    if sqlite.path_of(tracker.settings.tracking_uri) is None or not re.search("[%?#;]", str(Path.cwd())):
        return
    if tracker.client.get_experiment_by_name(name) is None:
        location = uris.as_uri(Path("mlruns", uuid.uuid4().hex[:12]))
        with contextlib.suppress(MlflowException):  # another process has created it meanwhile
            tracker.client.create_experiment(name, artifact_location=location)


def _check_artifacts(tracker: "TrackingClient", uri: str) -> None:
    """Check before any work that artifacts can be written, by writing one.

    Raises:
        TrackingError: If they cannot be written.
        MissingExtraError: If the client of the store is not installed.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with tracker.errors("the run's artifacts cannot be written", uri):
        directory = uris.local_path(uri)
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=directory).close()
        else:
            artifact_store.check(uri, functools.partial(get_artifact_repository, uri), delete=False)


def create_run(tracker: "TrackingClient", tags: dict[str, str]) -> str:
    """Create a run for another process, which receives its id, as `mlflow run` does."""
    import mlflow

    with tracker.errors():
        _make_experiment(tracker)
        experiment = mlflow.set_experiment(tracker.settings.experiment)
        run = tracker.client.create_run(experiment.experiment_id, tags=tags)
    return parse_run_id(run.info.run_id, f"a new run's id on {tracker.where}")


def check_round_trip(tracker: "TrackingClient", name: str) -> str:
    """Create a run with a file, read the file back, and delete both; return the server's version.

    Args:
        tracker: The tracking server.
        name: The run's name.

    Raises:
        TrackingError: If one of these is refused, or the file comes back changed.
    """
    import mlflow
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with tracker.errors():
        _make_experiment(tracker)
        experiment = tracker.client.get_experiment_by_name(tracker.settings.experiment)
        key = experiment.experiment_id if experiment else tracker.client.create_experiment(tracker.settings.experiment)
        run = tracker.client.create_run(key, run_name=name)
        parse_run_id(run.info.run_id, f"a new run's id on {tracker.where}")
        try:
            uri = _parse_artifacts(tracker, run.info.artifact_uri)
            with tracker.errors(store=uri):
                artifact_store.check(uri, functools.partial(get_artifact_repository, uri))
        finally:
            tracker.client.delete_run(run.info.run_id)
    version = tracking_uri.server_version(tracker.settings.tracking_uri)
    return f"MLflow {version}" if version else f"MLflow {mlflow.__version__} here"
