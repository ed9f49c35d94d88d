"""Distributed tuning through Ray Train, on one machine or many.

Checkpoints and events go to an actor on the node of this process, so that the workers need no common directory. If a
worker dies, Ray restarts all of them, and they resume from the latest checkpoint.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from newsbert.core import ray_cluster, temporary
from newsbert.core.events import Evaluation, Event, Note, Phase, Resumed, Step, ignore
from newsbert.core.ray_cluster import RayCluster
from newsbert.core.settings import RaySettings, TrainSettings
from newsbert.errors import DataError, NewsbertError, first_line
from newsbert.training import base_model, distributed, methods
from newsbert.training.checkpoints import Checkpoints
from newsbert.training.context import TrainingContext
from newsbert.training.fine_tuning import TrainedModel
from newsbert.training.rows import load_rows, make_paths_absolute

_MAX_FAILURES = 3
_POLL_S = 0.1


def fit(context: TrainingContext, shared: RaySettings, checkpoints: Checkpoints) -> TrainedModel:
    """Tune in Ray workers, which load the rows themselves, and return the model of the first worker.

    Args:
        context: The training.
        shared: Number of workers, and the cluster.
        checkpoints: Store of the checkpoints on this machine.

    Raises:
        NewsbertError: If Ray is not available, or the workers fail.
    """
    context.on_event(Phase(f"starting {shared.workers} workers"))
    with (
        ray_cluster.connected(shared, lambda message: context.on_event(Note(message))) as cluster,
        temporary.directory() as directory,
    ):
        import ray

        actor = cluster.beside(_CheckpointActor).remote(checkpoints)
        job = _TrainJob(
            TrainSettings(**make_paths_absolute(context.settings)), context.dataset.digest, cluster.worker_cores, actor
        )
        failures: list[Exception] = []
        # In its own thread, because this one handles Ctrl+C; it ends with the connection.
        thread = threading.Thread(target=_train, args=(cluster, directory, job, failures), daemon=True)
        thread.start()
        relay = _EventDeduplicator(context.on_event)
        while True:
            ended = not thread.is_alive()
            try:
                events, error, trained = ray.get(actor.news.remote(context.should_stop()))
            except ray.exceptions.RayActorError as actor_error:
                raise NewsbertError(
                    f"Ray gave up: {first_line(actor_error)}", "see whether memory suffices"
                ) from actor_error
            for event in events:
                relay(event)
            if error is not None:
                raise error
            if trained is not None:
                thread.join()
                return trained  # type: ignore[no-any-return]
            if ended:
                cause = failures[0] if failures else None
                reason = first_line(cause) if cause else "its workers ended"
                raise NewsbertError(f"Ray gave up: {reason}", "see whether memory suffices") from cause
            time.sleep(_POLL_S)


def _train(cluster: RayCluster, directory: Path, work: "_TrainJob", failed: list[Exception]) -> None:
    """Run the workers in Ray until they are done; Ray restarts them if one dies."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    try:
        TorchTrainer(
            _run_worker,
            train_loop_config={"work": work},
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ScalingConfig(
                num_workers=cluster.workers, resources_per_worker={"CPU": cluster.worker_cores}
            ),
            run_config=RunConfig(
                name="newsbert", storage_path=str(directory), failure_config=FailureConfig(max_failures=_MAX_FAILURES)
            ),
        ).fit()
    except Exception as error:  # also the errors after this process has disconnected from Ray
        failed.append(error)


@dataclass(frozen=True)
class _TrainJob:
    """Data that a worker needs.

    Attributes:
        settings: Settings of the training, with paths that are valid in any working directory.
        digest: Digest of the rows.
        cores: CPU cores of a worker.
        keeper: The actor that has the checkpoints.
    """

    settings: TrainSettings
    digest: str
    cores: int
    keeper: Any


def _run_worker(config: Mapping[str, _TrainJob]) -> None:
    """Run a worker; errors that a user can act on go to the actor, and any other makes Ray retry."""
    import ray

    job = config["work"]
    actor = job.keeper
    torch.set_num_threads(job.cores)
    try:
        rows = load_rows(job.settings)
        if rows.digest != job.digest:
            raise DataError(
                f"the rows of {job.settings.data!r} are others on the node of a worker",
                "have the same file everywhere",
            )
        first = distributed.rank() == 0
        if first:
            ray.get(actor.begin.remote())
        context = TrainingContext(
            job.settings,
            rows,
            base_model.find(job.settings.base_model),
            actor.tell.remote if first else ignore,
            lambda: first and bool(ray.get(actor.is_to_stop.remote())),
        )
        trained = methods.tune_part(context, _RemoteCheckpoints(actor))
        if first:
            ray.get(actor.finish.remote(trained))
    except NewsbertError as error:
        ray.get(actor.fail.remote(error))
    except ray.exceptions.RayTaskError as error:  # of the actor, which could not write
        ray.get(actor.fail.remote(error.cause))


class _CheckpointActor:
    """Actor with the checkpoints and the events of the workers.

    Args:
        checkpoints: Store of the checkpoints on this machine.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self._events: list[Event] = []
        self._begun = self._stop = False
        self._error: Exception | None = None
        self._trained: TrainedModel | None = None

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the checkpoints."""
        return getattr(self._checkpoints, method)(*arguments)

    def begin(self) -> None:
        if self._begun:
            self._events.append(Note("a worker died: all were started again, and go on from the latest checkpoint"))
        self._begun = True

    def tell(self, event: Event) -> None:
        self._events.append(event)

    def is_to_stop(self) -> bool:
        return self._stop

    def fail(self, error: Exception) -> None:
        self._error = error

    def finish(self, trained: TrainedModel) -> None:
        self._trained = trained

    def news(self, stop: bool) -> tuple[list[Event], Exception | None, TrainedModel | None]:
        """Return the events since the last call, the error and the model; store whether the workers are to stop."""
        self._stop = stop
        events, self._events = self._events, []
        return events, self._error, self._trained


class _RemoteCheckpoints(Checkpoints):
    """Checkpoints that the actor has."""

    def __init__(self, keeper: Any) -> None:
        self._actor = keeper

    def remembered(self, name: str) -> str | None:
        """Call `Checkpoints.remembered` in the actor."""
        return self._call("remembered", name)  # type: ignore[no-any-return]

    def keep(self, name: str, value: str) -> None:
        """Call `Checkpoints.keep` in the actor."""
        self._call("keep", name, value)

    def save(self, step: int, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Call `Checkpoints.save` in the actor."""
        self._call("save", step, dict(tensors), record)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Call `Checkpoints.load` in the actor."""
        return self._call("load")  # type: ignore[no-any-return]

    def save_best(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Call `Checkpoints.save_best` in the actor."""
        self._call("save_best", step, {name: tensor.detach() for name, tensor in tensors.items()})

    def load_best(self, step: int) -> dict[str, Tensor]:
        """Call `Checkpoints.load_best` in the actor."""
        return self._call("load_best", step)  # type: ignore[no-any-return]

    def _call(self, *call: Any) -> Any:
        import ray

        return ray.get(self._actor.ask.remote(*call))


class _EventDeduplicator:
    """Callback that forwards events, without those that restarted workers repeat."""

    def __init__(self, on_event: Callable[[Event], None]) -> None:
        self._on_event = on_event
        self._steps = dict.fromkeys((Step, Evaluation), 0)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Resumed) and self._steps[Step]:
            return
        if not isinstance(event, Step | Evaluation):
            self._on_event(event)
            return
        if event.step > self._steps[type(event)]:
            self._steps[type(event)] = event.step
            self._on_event(event)
