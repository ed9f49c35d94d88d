"""Training loop of all fine-tuning methods: order, schedule, evaluation, checkpoints, stopping, resuming.

A step is a function of its number, the seed, the parameters and the optimizer's state. So a training that resumes from
a checkpoint gives the same result as one that was never interrupted.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from newsbert.core.events import Evaluation, Event, History, Note, Resumed, Step, ignore, never
from newsbert.core.settings import TrainSettings
from newsbert.core.types import IntArray
from newsbert.errors import DivergedError
from newsbert.evaluation.metrics import Scores
from newsbert.training import distributed, optimizer
from newsbert.training.checkpoints import Checkpoints
from newsbert.training.sampler import LengthGroupedSampler

MAX_GRADIENT_NORM = 1.0
"""Norm that larger gradients are clipped to."""

_NUM_REPORTS = 100


class TrainingTask(Protocol):
    """A model and the rows to tune it on.

    Attributes:
        module: Module to tune: those of its parameters that require a gradient.
        lengths: Length of every training row; a batch has rows of about the same length.
    """

    module: nn.Module
    lengths: IntArray

    def backward(self, rows: Sequence[int], step: int) -> float:
        """Set the parameters' gradients of the mean loss of these training rows, and return the loss."""
        ...

    def score(self) -> Scores:
        """Score the validation rows."""
        ...


@dataclass
class TrainerState:
    """Progress of a training: the contents of a checkpoint besides tensors.

    Attributes:
        step: The last completed step.
        seconds: Training time until then, evaluations included.
        best_step: The step of the selected parameters; 0 before the first evaluation.
        history: Reported steps, and evaluations.
        losses: Losses of the steps since the last report.
    """

    step: int = 0
    seconds: float = 0.0
    best_step: int = 0
    history: History = field(default_factory=History)
    losses: list[float] = field(default_factory=list)

    def to_dict(self) -> dict[str, object]:
        """Return it as a dictionary for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, object]) -> "TrainerState":
        """Create it from the result of `to_dict`."""
        values = dict(record)
        history: Mapping[str, list[dict[str, float]]] = values.pop("history")  # type: ignore[assignment]
        steps = [Step(**step) for step in history["steps"]]  # type: ignore[arg-type]
        evaluations = [Evaluation(**evaluation) for evaluation in history["evaluations"]]  # type: ignore[arg-type]
        return cls(**values, history=History(steps, evaluations))  # type: ignore[arg-type]


@dataclass(frozen=True)
class TrainOutput:
    """Outcome of a training; the task's module has the selected parameters.

    Attributes:
        state: Progress at the end.
        stopped: True if a stop was requested.
        diverged_at: The step whose loss or gradient was not finite, which ended the training.
    """

    state: TrainerState
    stopped: bool
    diverged_at: int | None


class Trainer:
    """Trainer that tunes a task's module, resuming from the latest checkpoint if there is one.

    All processes of a distributed training run it. A subclass may replace the optimizer, order or schedule: override
    `make_optimizer`, `make_sampler` or `compute_learning_rate`.

    Args:
        task: The model and its rows.
        settings: Epochs or steps, batch size, learning rate and seed.
        checkpoints: Store of the checkpoints.
        on_event: Called after steps and evaluations.
        should_stop: Called after every step; if it returns true, the training evaluates and ends.
    """

    evaluations_per_epoch: ClassVar[float] = 2
    checkpoint_interval_s: ClassVar[float] = 120.0
    """Time after which a checkpoint is saved also between two evaluations."""
    min_checkpoint_interval_s: ClassVar[float] = 5.0
    """Minimum time between checkpoints: evaluations of a small training are too frequent to save one every time."""

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
        self._peak_learning_rate = settings.choose_learning_rate(len(task.lengths))
        self.num_steps, self._evaluation_interval = optimizer.count_steps(
            len(task.lengths), settings, self.evaluations_per_epoch
        )
        self._report_interval = math.ceil(self.num_steps / _NUM_REPORTS)
        self.optimizer = self.make_optimizer(self.parameters)
        self.state = _restore(checkpoints, self.parameters, self.optimizer)
        self._started, self._first_step, self._seconds_before = time.monotonic(), self.state.step, self.state.seconds

    def make_optimizer(self, parameters: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        """Create the optimizer; the learning rate of a group is multiplied by its `scale`."""
        layer_decay = optimizer.LAYER_DECAY if self.settings.tune == "full" else 1.0
        return optimizer.make_optimizer(parameters, layer_decay)

    def make_sampler(self, lengths: IntArray) -> LengthGroupedSampler:
        """Create the sampler of the rows of a step."""
        return LengthGroupedSampler(lengths, self.settings.choose_batch_size(len(lengths)), self.settings.seed)

    def compute_learning_rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 1."""
        return optimizer.learning_rate(step, self.num_steps, self._peak_learning_rate)

    def train(self) -> TrainOutput:
        """Train until the last step, a requested stop, or a loss that is not finite.

        Raises:
            DivergedError: If the loss is not finite before there are selected parameters.
        """
        state, saved = self.state, self._started
        if state.step:
            history = History([*state.history.steps], [*state.history.evaluations])
            self._on_event(Resumed(state.step, history))
        stopped, finite = False, True
        while state.step < self.num_steps and not stopped:
            finite, stop_requested = self._make_step()
            if not finite:
                break
            stopped = stop_requested and state.step < self.num_steps
            last = stopped or state.step == self.num_steps
            self._report(last)
            evaluated = last or state.step % self._evaluation_interval == 0
            if evaluated:
                finite = self.evaluate()
                if not finite:
                    break
            interval_s = self.min_checkpoint_interval_s if evaluated else self.checkpoint_interval_s
            if not last and distributed.rank() == 0 and time.monotonic() - saved >= interval_s:
                self._checkpoints.save(state.step, _collect_tensors(self.parameters, self.optimizer), state.to_dict())
                saved = time.monotonic()
        if not finite:
            self._report_divergence()
        best = distributed.broadcast(lambda: self._checkpoints.load_best(state.best_step))
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(best[name])
        return TrainOutput(state, stopped, None if finite else state.step)

    def evaluate(self) -> bool:
        """Score the validation rows and save parameters if not clearly worse; return whether the loss is finite."""
        state = self.state
        scores = self.task.score()
        if not math.isfinite(scores.loss):
            return False
        rows = int(scores.confusion.sum())
        candidates: list[Scores | Evaluation] = [*state.history.evaluations, scores]
        best = max(candidates, key=lambda candidate: candidate.f1_macro)
        is_selected = scores.f1_macro >= best.f1_macro - standard_error(best.accuracy, rows)
        if is_selected:
            if distributed.rank() == 0:
                self._checkpoints.save_best(state.step, self.parameters)
            state.best_step = state.step
        state.seconds = self._seconds_before + time.monotonic() - self._started
        epoch = state.step / self.sampler.steps
        evaluation = Evaluation(state.step, epoch, scores.accuracy, scores.f1_macro, scores.loss, is_selected)
        state.history.evaluations.append(evaluation)
        self._on_event(evaluation)
        return True

    def _make_step(self) -> tuple[bool, bool]:
        """Make the next step.

        Returns:
            Whether loss and gradient were finite, otherwise nothing changes; whether a stop was requested.
        """
        step = self.state.step + 1
        loss, stop_requested = self._backward(step)
        gradients = [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        self.state.step = step
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return False, stop_requested
        if norm > MAX_GRADIENT_NORM:
            nn.utils.clip_grads_with_norm_(self.parameters.values(), MAX_GRADIENT_NORM, norm)
        learning_rate = self.compute_learning_rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["scale"]
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.state.losses.append(loss)
        self.state.seconds = self._seconds_before + time.monotonic() - self._started
        return True, stop_requested

    def _backward(self, step: int) -> tuple[float, bool]:
        """Set the gradients of a step; return its loss and whether any process requests a stop."""
        rows = self.sampler.rows(step)
        local_rows = distributed.shard(rows)
        loss = self.task.backward(local_rows, step) if local_rows else 0.0
        if distributed.size() == 1:
            return loss, self._should_stop()
        weight = len(local_rows) / len(rows)
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
        remaining_s = (time.monotonic() - self._started) / (step - self._first_step) * (self.num_steps - step)
        learning_rate = self.compute_learning_rate(step)
        event = Step(step, self.num_steps, step / self.sampler.steps, loss, learning_rate, remaining_s, is_reported)
        if is_reported:
            steps.append(event)
        self._on_event(event)

    def _report_divergence(self) -> None:
        """Report the step, and the step of the selected parameters.

        Raises:
            DivergedError: If there are no selected parameters.
        """
        step, best, peak = self.state.step, self.state.best_step, self._peak_learning_rate
        if not best:
            raise DivergedError(
                f"the loss is not finite (NaN or infinite) at step {step} (peak learning rate {peak:g})"
            )
        self._on_event(
            Note(f"the loss is not finite (NaN or infinite) at step {step}: the model is that of step {best}")
        )


def standard_error(accuracy: float, rows: int) -> float:
    """Return the standard error of an accuracy on a number of rows, after Agresti and Coull: not 0 if all are right.

    The trainer selects the last checkpoint that is at most this far below the best. Breiman and others select trees by
    this rule in "Classification and Regression Trees" (1984). Later checkpoints have learned more than a score on few
    rows can show, and the best of many such scores is the luckiest. benchmarks/few_labels.py compares other rules.
    """
    estimate = (accuracy * rows + 2) / (rows + 4)
    return math.sqrt(estimate * (1 - estimate) / rows)


def _collect_tensors(parameters: Mapping[str, nn.Parameter], own_optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint: parameters, and the optimizer's state of them."""
    tensors = {f"parameter.{name}": parameter.detach() for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        tensors |= {f"{key}.{name}": value for key, value in own_optimizer.state[parameter].items()}
    return tensors


def _restore(
    checkpoints: Checkpoints, parameters: Mapping[str, nn.Parameter], own_optimizer: torch.optim.Optimizer
) -> TrainerState:
    """Set parameters and optimizer to the latest checkpoint, if there is one, and return its progress."""
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
