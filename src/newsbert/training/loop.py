"""The training loop that every way of tuning shares: order, schedule, the step that is kept, stopping and going on.

What a step does is a function of its number, the seed, the parameters and what the optimizer knows: a loop that went on
from a checkpoint does what one that never ended does.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from newsbert.core.events import Evaluation, Event, History, Note, Resumed, Step
from newsbert.core.settings import TrainSettings
from newsbert.core.types import IntArray
from newsbert.errors import DivergedError
from newsbert.evaluation.metrics import Scores
from newsbert.training import distributed
from newsbert.training.checkpoints import Checkpoints
from newsbert.training.optimizer import LAYER_DECAY, learning_rate, make_optimizer, steps
from newsbert.training.sampler import LengthGroupedSampler

MOST_GRADIENT = 1.0
"""Gradients of a larger norm are made that small."""

CHECKPOINT_S = 120.0
"""After how long there is a checkpoint also between two evaluations."""

LEAST_CHECKPOINT_S = 5.0
"""Evaluations of a small training come more often than is worth a checkpoint."""

_REPORTS = 100


class Task(Protocol):
    """What is tuned.

    Attributes:
        module: Those of its parameters that require a gradient are tuned.
        lengths: What a row of the training rows takes; rows of about the same share a batch.
    """

    module: nn.Module
    lengths: IntArray

    def backward(self, rows: Sequence[int], step: int) -> float:
        """Set the parameters' gradients of the mean loss of these training rows, and return it."""
        ...

    def score(self) -> Scores:
        """Score the validation rows."""
        ...


@dataclass
class Progress:
    """How far a training is: what a checkpoint says besides tensors."""

    step: int = 0
    seconds: float = 0.0
    best_step: int = 0
    history: History = field(default_factory=History)
    losses: list[float] = field(default_factory=list)
    """Of the steps since the last report."""

    def record(self) -> dict[str, object]:
        """As JSON can hold it."""
        return asdict(self)

    @classmethod
    def of(cls, record: Mapping[str, object]) -> "Progress":
        """What `record` returned."""
        values = dict(record)
        told: Mapping[str, list[dict[str, float]]] = values.pop("history")  # type: ignore[assignment]
        history = History(
            [Step(**each) for each in told["steps"]],  # type: ignore[arg-type]
            [Evaluation(**each) for each in told["evaluations"]],  # type: ignore[arg-type]
        )
        return cls(**values, history=history)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Outcome:
    """How a training ended; the task's module has the parameters of the step that is kept.

    Attributes:
        progress: Until the end.
        stopped: Whether it was asked to stop.
        diverged_at: The step whose loss or gradient was no finite number, which ended it.
    """

    progress: Progress
    stopped: bool
    diverged_at: int | None


def run(
    task: Task,
    settings: TrainSettings,
    checkpoints: Checkpoints,
    on_event: Callable[[Event], None],
    stop: Callable[[], bool],
) -> Outcome:
    """Tune a task's module, going on from the latest checkpoint if there is one, and leave it at the step that is kept.

    Where several processes share a training, all of them call this.

    Args:
        task: What is tuned.
        settings: Epochs or steps, batch size, learning rate and seed.
        checkpoints: Where they are kept.
        on_event: Called after steps and evaluations.
        stop: Asked after every step; when it answers true, the loop evaluates and returns.

    Raises:
        DivergedError: If the loss is no finite number, and was never one at an evaluation.
    """
    return _Loop(task, settings, checkpoints, on_event).run(stop)


class _Loop:
    """One training."""

    def __init__(
        self, task: Task, settings: TrainSettings, checkpoints: Checkpoints, on_event: Callable[[Event], None]
    ) -> None:
        self._task, self._checkpoints, self._on_event = task, checkpoints, on_event
        self._peak = settings.peak_learning_rate
        self._parameters = {name: each for name, each in task.module.named_parameters() if each.requires_grad}
        self._order = LengthGroupedSampler(task.lengths, settings.rows_a_step(len(task.lengths)), settings.seed)
        self._total, self._interval = steps(len(task.lengths), settings)
        self._told = math.ceil(self._total / _REPORTS)
        self._optimizer = make_optimizer(self._parameters, LAYER_DECAY if settings.tune == "full" else 1.0)
        self._progress = _restore(checkpoints, self._parameters, self._optimizer)
        self._began, self._began_at, self._before = time.monotonic(), self._progress.step, self._progress.seconds

    def run(self, stop: Callable[[], bool]) -> Outcome:
        """Go on to the last step, or until it is to stop, or the loss is no finite number."""
        progress, saved = self._progress, self._began
        if progress.step:
            told = progress.history
            self._on_event(Resumed(progress.step, History([*told.steps], [*told.evaluations])))
        stopped, finite = False, True
        while progress.step < self._total and not stopped:
            finite, asked = self._step(stop)
            if not finite:
                break
            stopped = asked and progress.step < self._total
            last = stopped or progress.step == self._total
            self._report(last)
            evaluated = last or progress.step % self._interval == 0
            if evaluated:
                finite = self._evaluate()
                if not finite:
                    break
            pause_s = LEAST_CHECKPOINT_S if evaluated else CHECKPOINT_S
            if not last and distributed.rank() == 0 and time.monotonic() - saved >= pause_s:
                tensors = _tensors(self._parameters, self._optimizer)
                self._checkpoints.save(progress.step, tensors, progress.record())
                saved = time.monotonic()
        if not finite:
            self._diverged()
        best = distributed.told(lambda: self._checkpoints.load_best(progress.best_step))
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(best[name])
        return Outcome(progress, stopped, None if finite else progress.step)

    def _step(self, stop: Callable[[], bool]) -> tuple[bool, bool]:
        """Make the next step.

        Returns:
            Whether loss and gradient were finite numbers, without which nothing is changed; whether to stop then.
        """
        step = self._progress.step + 1
        loss, asked = self._backward(step, stop)
        norm = float(nn.utils.clip_grad_norm_(self._parameters.values(), MOST_GRADIENT))
        self._progress.step = step
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return False, asked
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(step, self._total, self._peak) * group["share"]
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._progress.losses.append(loss)
        self._progress.seconds = self._before + time.monotonic() - self._began
        return True, asked

    def _backward(self, step: int, stop: Callable[[], bool]) -> tuple[float, bool]:
        """Set the gradients of a step; return its loss and whether any process is to stop."""
        rows = self._order.rows(step)
        own = distributed.part(rows)
        loss = self._task.backward(own, step) if own else 0.0
        if distributed.size() == 1:
            return loss, stop()
        share = len(own) / len(rows)
        for parameter in self._parameters.values():
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.mul_(share)
        gradients = [each.grad for each in self._parameters.values() if each.grad is not None]
        told = torch.tensor([loss * share, float(stop())], device=gradients[0].device)
        distributed.add([*gradients, told])
        return float(told[0]), bool(told[1])

    def _report(self, last: bool) -> None:
        step, told = self._progress.step, self._progress.history.steps
        loss = told[-1].loss if told else None
        report = last or step % self._told == 0
        if report:
            loss = sum(self._progress.losses) / len(self._progress.losses)
            self._progress.losses.clear()
        left = (time.monotonic() - self._began) / (step - self._began_at) * (self._total - step)
        rate = learning_rate(step, self._total, self._peak)
        now = Step(step, self._total, step / self._order.steps, loss, rate, left, report)
        if report:
            told.append(now)
        self._on_event(now)

    def _evaluate(self) -> bool:
        """Score the validation rows, and keep what is not clearly worse; tell whether the scores are finite numbers."""
        progress = self._progress
        scores = self._task.score()
        if not math.isfinite(scores.loss):
            return False
        rows = int(scores.confusion.sum())
        so_far: list[Scores | Evaluation] = [*progress.history.evaluations, scores]
        best = max(so_far, key=lambda each: each.f1_macro)
        kept = scores.f1_macro >= best.f1_macro - standard_error(best.accuracy, rows)
        if kept:
            if distributed.rank() == 0:
                self._checkpoints.save_best(progress.step, self._parameters)
            progress.best_step = progress.step
        progress.seconds = self._before + time.monotonic() - self._began
        epoch = progress.step / self._order.steps
        found = Evaluation(progress.step, epoch, scores.accuracy, scores.f1_macro, scores.loss, kept)
        progress.history.evaluations.append(found)
        self._on_event(found)
        return True

    def _diverged(self) -> None:
        """Say at which step, and what is kept.

        Raises:
            DivergedError: If there is nothing to keep.
        """
        step, best = self._progress.step, self._progress.best_step
        if not best:
            raise DivergedError(f"the loss is no finite number at step {step} (peak learning rate {self._peak:g})")
        self._on_event(Note(f"the loss is no finite number at step {step}: the model is that of step {best}"))


def standard_error(accuracy: float, rows: int) -> float:
    """By how much chance moves an accuracy on so many rows, after Agresti and Coull: not by nothing if all are right.

    The last checkpoint that is at most so far below the best is kept, as trees are chosen in Breiman and others'
    "Classification and Regression Trees" (1984): later ones have learned more than a score on few rows can show, and
    the best of many such scores is the luckiest. benchmarks/few_labels.py tries it beside other rules.
    """
    share = (accuracy * rows + 2) / (rows + 4)
    return math.sqrt(share * (1 - share) / rows)


def _tensors(parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What a checkpoint holds: parameters, and what the optimizer knows of each."""
    found = {f"parameter.{name}": each.detach() for name, each in parameters.items()}
    for name, parameter in parameters.items():
        found |= {f"{key}.{name}": value for key, value in optimizer.state[parameter].items()}
    return found


def _restore(
    checkpoints: Checkpoints, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> Progress:
    """Set parameters and optimizer to the latest checkpoint, if there is one."""
    found = distributed.told(checkpoints.load)
    if found is None:
        return Progress()
    tensors, record = found
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"parameter.{name}"])
            keys = [key for key in ("step", "exp_avg", "exp_avg_sq") if f"{key}.{name}" in tensors]
            optimizer.state[parameter] = {
                key: tensors[f"{key}.{name}"].to("cpu" if key == "step" else parameter.device) for key in keys
            }
    return Progress.of(record)
