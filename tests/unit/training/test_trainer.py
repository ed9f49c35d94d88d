"""The training loop: what it computes, where it stops, and from where it goes on."""

import dataclasses
import itertools
import json
import math
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from newsbert.core.events import Event, Note, Resumed, Step
from newsbert.errors import DivergedError
from newsbert.evaluation import metrics
from newsbert.evaluation.metrics import Scores
from newsbert.training import optimizer
from newsbert.training.checkpoints import Checkpoints
from newsbert.training.trainer import Trainer, TrainerState, TrainOutput, standard_error
from tests.support.points import ROWS, SETTINGS, Points


class KilledError(BaseException):
    """Nothing in the loop may catch it."""


def _run(task: Points, directory: Path, kill_at: int | None = None, events: list[Event] | None = None) -> TrainOutput:
    def on_event(event: Event) -> None:
        if events is not None:
            events.append(event)
        if isinstance(event, Step) and event.step == kill_at:
            raise KilledError

    return Trainer(task, SETTINGS, Checkpoints(directory), on_event).train()


def test_every_row_is_read_once_an_epoch_with_rows_of_like_lengths(tmp_path: Path) -> None:
    task = Points()
    outcome = _run(task, tmp_path / "a")
    steps = math.ceil(ROWS / 8)
    assert outcome.state.step == 4 * steps
    orders = [[task.read[epoch * steps + place] for place in range(1, steps + 1)] for epoch in range(4)]
    for order in orders:
        assert sorted(row for rows in order for row in rows) == list(range(ROWS))
        assert sum(int(np.ptp(task.lengths[rows])) for rows in order) <= 2 * steps
    assert orders[0] != orders[1]
    assert max(evaluation.f1_macro for evaluation in outcome.state.history.evaluations) > 0.9


@pytest.mark.parametrize("kill_at", range(1, 28, 3))
def test_a_loop_that_was_killed_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    monkeypatch.setattr(Trainer, "min_checkpoint_interval_s", 0)
    whole, killed, gone_on = Points(), Points(), Points()
    expected = _run(whole, tmp_path / "a")
    with pytest.raises(KilledError):
        _run(killed, tmp_path / "b", kill_at)
    events: list[Event] = []
    resumed = _run(gone_on, tmp_path / "b", events=events)
    assert gone_on.weights == whole.weights
    assert (1 in gone_on.read) == (kill_at <= 4)  # the first evaluation, and with it a checkpoint, is at step 4
    assert {**killed.read, **gone_on.read} == whole.read
    assert all(killed.read[step] == rows for step, rows in gone_on.read.items() if step in killed.read)

    def reports(outcome: TrainOutput) -> object:
        history = outcome.state.history
        steps = [(step.step, step.learning_rate, step.loss) for step in history.steps]
        return steps, history.evaluations, outcome.state.best_step

    assert reports(resumed) == reports(expected)
    # A listener gets every report, the earlier ones at once.
    first = events[0]
    assert isinstance(first, Resumed) == (kill_at > 4)
    if isinstance(first, Resumed):
        steps = [step.step for step in first.history.steps]
        assert steps == list(range(1, first.step + 1))


@pytest.mark.parametrize(
    ("rows", "chosen"), [(20, 4), (2000, 1)], ids=["that may be chance on few rows", "that is significant on many"]
)
def test_the_last_is_chosen_that_is_not_clearly_worse_than_the_best(tmp_path: Path, rows: int, chosen: int) -> None:
    class Scored(Points):
        wrong = itertools.chain([0.3, 0.05, 0.1, 0.3, 0.1], itertools.repeat(0.4))

        def score(self) -> Scores:
            labels = np.arange(rows) % 2
            answers = np.where(np.arange(rows) < next(self.wrong) * rows, 1 - labels, labels)
            return metrics.score(np.eye(2, dtype=np.float32)[answers], labels, ("below", "above"))

    outcome = _run(Scored(), tmp_path / "a")
    evaluated = outcome.state.history.evaluations
    assert outcome.state.best_step == evaluated[chosen].step
    assert [evaluation.step for evaluation in evaluated if evaluation.best][-1] == evaluated[chosen].step


@pytest.mark.parametrize("accuracy", [0.0, 0.5, 0.9, 1.0])
def test_chance_moves_a_score_on_many_rows_less(accuracy: float) -> None:
    errors = [standard_error(accuracy, rows) for rows in (4, 16, 64, 10_000)]
    assert errors == sorted(errors, reverse=True)
    assert 0 < errors[-1] < 0.006
    assert standard_error(0.5, 100) == pytest.approx(0.05)


def test_a_checkpoint_is_whole_and_the_one_before_stays_when_the_disk_is_full(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(1, {"a": torch.ones(3)}, {"step": 1, "best_step": 0})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # larger files meet what a full disk is
    try:
        with pytest.raises((OSError, SafetensorError), match=r"(?i)too large|os error 27"):
            checkpoints.save(2, {"a": torch.zeros(100_000)}, {"step": 2, "best_step": 0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["checkpoint-1"]
    loaded = Checkpoints(tmp_path / "c").load()
    assert loaded is not None
    assert loaded[0]["a"].tolist() == [1, 1, 1]
    checkpoints.save(3, {"a": torch.zeros(3)}, {"step": 3, "best_step": 0})
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["checkpoint-3"]


def test_a_partial_checkpoint_is_none(tmp_path: Path) -> None:
    Checkpoints(tmp_path / "c").save(1, {"a": torch.ones(3)}, {"step": 1, "best_step": 0})
    (tmp_path / "c" / ".checkpoint-2").mkdir()
    (tmp_path / "c" / ".checkpoint-2" / "record.json").write_text("{", encoding="utf-8")
    assert Checkpoints(tmp_path / "c").record() == {"step": 1, "best_step": 0}
    assert not (tmp_path / "c" / ".checkpoint-2").exists()


def test_a_loss_that_is_no_number_ends_it_with_the_last_good_model(tmp_path: Path) -> None:
    task = Points(nan_at=20)
    notes: list[Event] = []
    outcome = Trainer(task, SETTINGS, Checkpoints(tmp_path / "a"), notes.append).train()
    assert outcome.diverged_at == 20
    assert 0 < outcome.state.best_step < 20
    assert all(math.isfinite(value) for row in task.weights for value in row)
    best = [evaluation for evaluation in outcome.state.history.evaluations if evaluation.best][-1]
    assert task.score().loss == pytest.approx(best.loss)
    assert [event.message for event in notes if isinstance(event, Note)] == [
        f"the loss is not finite (NaN or infinite) at step 20: the model is that of step {outcome.state.best_step}"
    ]


def test_a_loss_that_never_was_a_number_is_an_error_that_names_the_step(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"step 2 \(peak learning rate 0.1\)") as caught:
        _run(Points(nan_at=2), tmp_path / "a")
    assert "--learning-rate" in str(caught.value.hint)


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [optimizer.learning_rate(step, 100, 1.0) for step in range(1, 101)]
    assert rates[:6] == [step / 6 for step in range(1, 7)]
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[5:]))
    assert 0 < rates[-1] < 0.02
    assert optimizer.learning_rate(1, 1, 1.0) == 1


def test_steps_may_be_bounded(tmp_path: Path) -> None:
    task = Points()
    settings = dataclasses.replace(SETTINGS, max_steps=5)
    outcome = Trainer(task, settings, Checkpoints(tmp_path / "a")).train()
    assert outcome.state.step == 5
    assert [evaluation.step for evaluation in outcome.state.history.evaluations] == [4, 5]


def test_progress_survives_json() -> None:
    progress = TrainerState(3, 1.5, 2)
    progress.history.steps.append(Step(3, 10, 0.3, 1.0, 0.1, 7.0))
    assert TrainerState.from_dict(json.loads(json.dumps(progress.to_dict()))) == progress


def test_lower_layers_learn_more_slowly() -> None:
    names = [
        "bert.embeddings.position_embeddings.weight", "bert.encoder.layer.0.output.dense.bias",
        "bert.encoder.layer.1.output.dense.bias", "bert.pooler.dense.weight", "classifier.weight",
    ]  # fmt: skip
    assert list(optimizer.learning_rate_scales(names, 0.5).values()) == [0.25, 0.5, 1.0, 1.0, 1.0]
    names = ["model.layers.0.mlp.weight", "model.layers.11.mlp.weight", "head.weight"]
    assert optimizer.learning_rate_scales(names, 0.8) == {
        "model.layers.0.mlp.weight": pytest.approx(0.8**11), "model.layers.11.mlp.weight": 1.0, "head.weight": 1.0,
    }  # fmt: skip
    assert optimizer.learning_rate_scales(["0.weight"], 0.8) == {"0.weight": 1.0}


@pytest.mark.parametrize(("tune", "below"), [("full", 0.8), ("lora", 1.0)])
def test_the_layer_below_makes_smaller_steps_where_the_encoder_is_tuned_as_a_whole(
    tmp_path: Path, tune: str, below: float
) -> None:
    task = Points()
    layers = nn.Linear(2, 2), nn.Linear(2, 2)
    stack = nn.Sequential(*layers)
    task.module = nn.ModuleDict({"encoder": nn.ModuleDict({"layer": stack})})
    task.module.forward = stack.forward
    before = [layer.bias.tolist() for layer in layers]
    settings = dataclasses.replace(SETTINGS, tune=tune, max_steps=1)
    Trainer(task, settings, Checkpoints(tmp_path / "a")).train()
    moved = [np.abs(layer.bias.tolist() - np.array(was)) for layer, was in zip(layers, before, strict=True)]
    # AdamW's first step is of the length of the rate, whatever the gradient.
    assert moved[0] == pytest.approx(0.1 * below, rel=1e-3)
    assert moved[1] == pytest.approx(0.1, rel=1e-3)
