"""The training loop that all fine-tuning methods share: order, schedule, evaluation, checkpoints, stopping, resuming.

What a step does is a function of its number, the seed, the parameters and the optimizer's state. So a training that
resumes from a checkpoint does what one does that was never interrupted.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from newsbert.core.events import Evaluation, Event, History, Note, Resumed, Step
from newsbert.core.settings import TrainSettings
from newsbert.core.types import IntArray
from newsbert.errors import DivergedError
from newsbert.evaluation.metrics import Scores
from newsbert.training import distributed, optimizer
from newsbert.training.checkpoints import Checkpoints
from newsbert.training.context import ignore, never
from newsbert.training.sampler import LengthGroupedSampler

MAX_GRADIENT_NORM = 1.0
"""Gradients of a larger norm are made that small."""

_NUM_REPORTS = 100


class TrainingTask(Protocol):
    """A model and rows to tune it on.

    Attributes:
        module: Those of its parameters that require a gradient are tuned.
        lengths: The length of every training row; rows of about the same length share a batch.
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
class TrainerState:
    """How far a training is: what a checkpoint holds besides tensors.

    Attributes:
        step: The last step that was made.
        seconds: Training time until then, evaluations included.
        best_step: The step whose parameters are kept; 0 before the first evaluation.
        history: Reported steps, and evaluations.
        losses: Of the steps since the last report.
    """

    step: int = 0
    seconds: float = 0.0
    best_step: int = 0
    history: History = field(default_factory=History)
    losses: list[float] = field(default_factory=list)

    def to_dict(self) -> dict[str, object]:
        """Return it as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, object]) -> "TrainerState":
        """Read what `to_dict` returned."""
        values = dict(record)
        history: Mapping[str, list[dict[str, float]]] = values.pop("history")  # type: ignore[assignment]
        steps = [Step(**step) for step in history["steps"]]  # type: ignore[arg-type]
        evaluations = [Evaluation(**evaluation) for evaluation in history["evaluations"]]  # type: ignore[arg-type]
        return cls(**values, history=History(steps, evaluations))  # type: ignore[arg-type]


@dataclass(frozen=True)
class TrainOutput:
    """How a training ended; the task's module has the parameters of the step that is kept.

    Attributes:
        state: At the end.
        stopped: Whether it was asked to stop.
        diverged_at: The step whose loss or gradient was no finite number, which ended it.
    """

    state: TrainerState
    stopped: bool
    diverged_at: int | None


class Trainer:
    """Tune a task's module, resuming from the latest checkpoint if there is one.

    Where several processes share a training, all of them do this. A subclass may have another optimizer, order or
    schedule, by `make_optimizer`, `make_sampler` and `compute_learning_rate`.

    Args:
        task: The model and its rows.
        settings: Epochs or steps, batch size, learning rate and seed.
        checkpoints: Where they are saved.
        on_event: Called after steps and evaluations.
        should_stop: Called after every step; where it returns true, the training evaluates and ends.
    """

    evaluations_per_epoch: ClassVar[float] = 2
    checkpoint_interval_s: ClassVar[float] = 120.0
    """After this time there is a checkpoint also between two evaluations."""
    min_checkpoint_interval_s: ClassVar[float] = 5.0
    """Evaluations of a small training come more often than is worth a checkpoint."""

    def __init__(
        self,
        task: TrainingTask,
        settings: TrainSettings,
        checkpoints: Checkpoints,
        on_event: Callable[[Event], None] = ignore,
        should_stop: Callable[[], bool] = never,
    ) -> None:
        self.task, self.settings = task, settings
        self._checkpoints, self._on_event, self._should_stop = checkpoints, on_event, should_stop
        self.parameters = {name: value for name, value in task.module.named_parameters() if value.requires_grad}
        self.sampler = self.make_sampler(task.lengths)
        self.num_steps, self._evaluation_interval = optimizer.count_steps(
            len(task.lengths), settings, self.evaluations_per_epoch
        )
        self._report_interval = math.ceil(self.num_steps / _NUM_REPORTS)
        self.optimizer = self.make_optimizer(self.parameters)
        self.state = _restore(checkpoints, self.parameters, self.optimizer)
        self._started, self._first_step, self._seconds_before = time.monotonic(), self.state.step, self.state.seconds

    def make_optimizer(self, parameters: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        """Make the optimizer; the learning rate of a group is multiplied by its `scale`."""
        layer_decay = optimizer.LAYER_DECAY if self.settings.tune == "full" else 1.0
        return optimizer.make_optimizer(parameters, layer_decay)

    def make_sampler(self, lengths: IntArray) -> LengthGroupedSampler:
        """Make what says which rows a step reads."""
        return LengthGroupedSampler(lengths, self.settings.rows_a_step(len(lengths)), self.settings.seed)

    def compute_learning_rate(self, step: int) -> float:
        """Return the learning rate of a step, of which the first is 1."""
        return optimizer.learning_rate(step, self.num_steps, self.settings.peak_learning_rate)

    def train(self) -> TrainOutput:
        """Train to the last step, or until it should stop, or the loss is no finite number.

        Raises:
            DivergedError: If the loss is no finite number before there is anything to keep.
        """
        state, saved = self.state, self._started
        if state.step:
            history = History([*state.history.steps], [*state.history.evaluations])
            self._on_event(Resumed(state.step, history))
        stopped, finite = False, True
        while state.step < self.num_steps and not stopped:
            finite, asked = self._step()
            if not finite:
                break
            stopped = asked and state.step < self.num_steps
            last = stopped or state.step == self.num_steps
            self._report(last)
            evaluated = last or state.step % self._evaluation_interval == 0
            if evaluated:
                finite = self.evaluate()
                if not finite:
                    break
            pause_s = self.min_checkpoint_interval_s if evaluated else self.checkpoint_interval_s
            if not last and distributed.rank() == 0 and time.monotonic() - saved >= pause_s:
                self._checkpoints.save(state.step, _tensors(self.parameters, self.optimizer), state.to_dict())
                saved = time.monotonic()
        if not finite:
            self._report_divergence()
        best = distributed.broadcast(lambda: self._checkpoints.load_best(state.best_step))
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(best[name])
        return TrainOutput(state, stopped, None if finite else state.step)

    def evaluate(self) -> bool:
        """Score the validation rows, and keep what is not clearly worse; return whether the scores are finite."""
        state = self.state
        scores = self.task.score()
        if not math.isfinite(scores.loss):
            return False
        rows = int(scores.confusion.sum())
        candidates: list[Scores | Evaluation] = [*state.history.evaluations, scores]
        best = max(candidates, key=lambda candidate: candidate.f1_macro)
        is_kept = scores.f1_macro >= best.f1_macro - standard_error(best.accuracy, rows)
        if is_kept:
            if distributed.rank() == 0:
                self._checkpoints.save_best(state.step, self.parameters)
            state.best_step = state.step
        state.seconds = self._seconds_before + time.monotonic() - self._started
        epoch = state.step / self.sampler.steps
        evaluation = Evaluation(state.step, epoch, scores.accuracy, scores.f1_macro, scores.loss, is_kept)
        state.history.evaluations.append(evaluation)
        self._on_event(evaluation)
        return True

    def _step(self) -> tuple[bool, bool]:
        """Make the next step.

        Returns:
            Whether loss and gradient were finite numbers, without which nothing is changed; whether to stop then.
        """
        step = self.state.step + 1
        loss, asked = self._backward(step)
        norm = float(nn.utils.clip_grad_norm_(self.parameters.values(), MAX_GRADIENT_NORM))
        self.state.step = step
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return False, asked
        learning_rate = self.compute_learning_rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["scale"]
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.state.losses.append(loss)
        self.state.seconds = self._seconds_before + time.monotonic() - self._started
        return True, asked

    def _backward(self, step: int) -> tuple[float, bool]:
        """Set the gradients of a step; return its loss and whether any process is to stop."""
        rows = self.sampler.rows(step)
        own = distributed.shard(rows)
        loss = self.task.backward(own, step) if own else 0.0
        if distributed.size() == 1:
            return loss, self._should_stop()
        weight = len(own) / len(rows)
        for parameter in self.parameters.values():
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.mul_(weight)
        gradients = [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]
        sums = torch.tensor([loss * weight, float(self._should_stop())], device=gradients[0].device)
        distributed.all_reduce([*gradients, sums])
        return float(sums[0]), bool(sums[1])

    def _report(self, last: bool) -> None:
        step, steps = self.state.step, self.state.history.steps
        loss = steps[-1].loss if steps else None
        is_reported = last or step % self._report_interval == 0
        if is_reported:
            loss = sum(self.state.losses) / len(self.state.losses)
            self.state.losses.clear()
        left_s = (time.monotonic() - self._started) / (step - self._first_step) * (self.num_steps - step)
        learning_rate = self.compute_learning_rate(step)
        event = Step(step, self.num_steps, step / self.sampler.steps, loss, learning_rate, left_s, is_reported)
        if is_reported:
            steps.append(event)
        self._on_event(event)

    def _report_divergence(self) -> None:
        """Say at which step, and what is kept.

        Raises:
            DivergedError: If there is nothing to keep.
        """
        step, best, peak = self.state.step, self.state.best_step, self.settings.peak_learning_rate
        if not best:
            raise DivergedError(f"the loss is no finite number at step {step} (peak learning rate {peak:g})")
        self._on_event(Note(f"the loss is no finite number at step {step}: the model is that of step {best}"))


def standard_error(accuracy: float, rows: int) -> float:
    """Return the standard error of an accuracy on so many rows, after Agresti and Coull: not 0 if all are right.

    The last checkpoint that is at most so far below the best is kept, as trees are chosen in Breiman and others'
    "Classification and Regression Trees" (1984): later ones have learned more than a score on few rows can show, and
    the best of many such scores is the luckiest. benchmarks/few_labels.py tries it beside other rules.
    """
    estimate = (accuracy * rows + 2) / (rows + 4)
    return math.sqrt(estimate * (1 - estimate) / rows)


def _tensors(parameters: Mapping[str, nn.Parameter], own_optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return what a checkpoint holds: parameters, and the optimizer's state of each."""
    tensors = {f"parameter.{name}": parameter.detach() for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        tensors |= {f"{key}.{name}": value for key, value in own_optimizer.state[parameter].items()}
    return tensors


def _restore(
    checkpoints: Checkpoints, parameters: Mapping[str, nn.Parameter], own_optimizer: torch.optim.Optimizer
) -> TrainerState:
    """Set parameters and optimizer to the latest checkpoint, if there is one."""
    checkpoint = distributed.broadcast(checkpoints.load)
    if checkpoint is None:
        return TrainerState()
    tensors, record = checkpoint
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"parameter.{name}"])
            keys = [key for key in ("step", "exp_avg", "exp_avg_sq") if f"{key}.{name}" in tensors]
            own_optimizer.state[parameter] = {
                key: tensors[f"{key}.{name}"].to("cpu" if key == "step" else parameter.device) for key in keys
            }
    return TrainerState.from_dict(record)
