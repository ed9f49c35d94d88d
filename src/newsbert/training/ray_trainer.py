"""Tuning in several processes, on one machine or many, through Ray Train.

Checkpoints and what happens go to an actor beside this process, so that the workers need no directory in common. When
a worker dies, Ray starts all of them again, and they go on from the latest checkpoint.
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
from newsbert.core.events import Evaluation, Event, Note, Phase, Resumed, Step
from newsbert.core.ray_cluster import RayCluster
from newsbert.core.settings import RaySettings, TrainSettings
from newsbert.errors import DataError, NewsbertError, first_line
from newsbert.training import base_model, distributed, strategies
from newsbert.training.checkpoints import Checkpoints
from newsbert.training.context import TrainingContext, ignore
from newsbert.training.fine_tuning import TrainedModel
from newsbert.training.rows import load_rows, make_paths_absolute

_DEATHS = 3
_POLL_S = 0.1


def fit(context: TrainingContext, shared: RaySettings, checkpoints: Checkpoints) -> TrainedModel:
    """Tune in Ray's workers, which load the rows themselves, and return what the first of them has.

    Args:
        context: The training.
        shared: How many workers, and where.
        checkpoints: Where they are saved on this machine.

    Raises:
        NewsbertError: If there is no Ray, or the workers cannot do it.
    """
    context.on_event(Phase(f"starting {shared.workers} workers"))
    with (
        ray_cluster.connected(shared, lambda said: context.on_event(Note(said))) as cluster,
        temporary.directory() as directory,
    ):
        import ray

        keeper = cluster.beside(_CheckpointActor).remote(checkpoints)
        work = _TrainJob(
            TrainSettings(**make_paths_absolute(context.settings)), context.dataset.digest, cluster.worker_cores, keeper
        )
        failed: list[Exception] = []
        # In a thread of its own, since Ctrl+C is ours; it ends with the connection.
        thread = threading.Thread(target=_train, args=(cluster, directory, work, failed), daemon=True)
        thread.start()
        relay = _EventDeduplicator(context.on_event)
        while True:
            ended = not thread.is_alive()
            try:
                events, error, trained = ray.get(keeper.news.remote(context.should_stop()))
            except ray.exceptions.RayActorError as lost:
                raise NewsbertError(f"Ray gave up: {first_line(lost)}", "see whether memory suffices") from lost
            for event in events:
                relay(event)
            if error is not None:
                raise error
            if trained is not None:
                thread.join()
                return trained  # type: ignore[no-any-return]
            if ended:
                cause = failed[0] if failed else None
                reason = first_line(cause) if cause else "its workers ended"
                raise NewsbertError(f"Ray gave up: {reason}", "see whether memory suffices") from cause
            time.sleep(_POLL_S)


def _train(cluster: RayCluster, directory: Path, work: "_TrainJob", failed: list[Exception]) -> None:
    """Have Ray start the workers, and start them again where one dies, until they are done."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    try:
        TorchTrainer(
            _work,
            train_loop_config={"work": work},
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ScalingConfig(
                num_workers=cluster.workers, resources_per_worker={"CPU": cluster.worker_cores}
            ),
            run_config=RunConfig(
                name="newsbert", storage_path=str(directory), failure_config=FailureConfig(max_failures=_DEATHS)
            ),
        ).fit()
    except Exception as error:  # also what is raised when this process has let go of Ray
        failed.append(error)


@dataclass(frozen=True)
class _TrainJob:
    """What a worker has to know.

    Attributes:
        settings: The training's, with paths that mean the same in any working directory.
        digest: Of the rows.
        cores: For each worker.
        keeper: The actor.
    """

    settings: TrainSettings
    digest: str
    cores: int
    keeper: Any


def _work(config: Mapping[str, _TrainJob]) -> None:
    """Do a worker's part; an error that a user can act on goes to the keeper, any other is Ray's to try again."""
    import ray

    work = config["work"]
    keeper = work.keeper
    torch.set_num_threads(work.cores)
    try:
        rows = load_rows(work.settings)
        if rows.digest != work.digest:
            raise DataError(
                f"the rows of {work.settings.data!r} are others on the node of a worker",
                "have the same file everywhere",
            )
        first = distributed.rank() == 0
        if first:
            ray.get(keeper.begin.remote())
        context = TrainingContext(
            work.settings,
            rows,
            base_model.find(work.settings.base_model),
            keeper.tell.remote if first else ignore,
            lambda: first and bool(ray.get(keeper.is_to_stop.remote())),
        )
        trained = strategies.tune_part(context, _Remote(keeper))
        if first:
            ray.get(keeper.finish.remote(trained))
    except NewsbertError as error:
        ray.get(keeper.fail.remote(error))
    except ray.exceptions.RayTaskError as error:  # of the keeper, which could not write
        ray.get(keeper.fail.remote(error.cause))


class _CheckpointActor:
    """Has the checkpoints, and what the workers have to tell.

    Args:
        checkpoints: Those of this machine.
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
        """What was told since this was asked last, and how it has ended; whether the workers are to stop is noted."""
        self._stop = stop
        events, self._events = self._events, []
        return events, self._error, self._trained


class _Remote(Checkpoints):
    """Checkpoints that a keeper has."""

    def __init__(self, keeper: Any) -> None:
        self._keeper = keeper

    def remembered(self, name: str) -> str | None:
        """As `Checkpoints` has it."""
        return self._ask("remembered", name)  # type: ignore[no-any-return]

    def keep(self, name: str, value: str) -> None:
        """As `Checkpoints` has it."""
        self._ask("keep", name, value)

    def save(self, step: int, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """As `Checkpoints` has it."""
        self._ask("save", step, dict(tensors), record)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """As `Checkpoints` has it."""
        return self._ask("load")  # type: ignore[no-any-return]

    def save_best(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """As `Checkpoints` has it."""
        self._ask("save_best", step, {name: each.detach() for name, each in tensors.items()})

    def load_best(self, step: int) -> dict[str, Tensor]:
        """As `Checkpoints` has it."""
        return self._ask("load_best", step)  # type: ignore[no-any-return]

    def _ask(self, *call: Any) -> Any:
        import ray

        return ray.get(self._keeper.ask.remote(*call))


class _EventDeduplicator:
    """Passes events on; what workers that were started again do once more is not told again."""

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
