"""Several processes of one training do what a single one does."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed
from torch.multiprocessing.spawn import spawn

from newsbert.core.events import Event, Step
from newsbert.training import distributed as parallel
from newsbert.training.checkpoints import Checkpoints
from newsbert.training.trainer import Trainer
from tests.support.points import ROWS, SETTINGS, Points

ODD = dataclasses.replace(SETTINGS, batch_size=7)
"""The last batch of an epoch has a single row: one of two processes has none."""


def _train_rank(rank: int, size: int, directory: str, stop_at: int | None) -> None:
    """One process: tune, and write down what it has at the end."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{directory}/meeting", rank=rank, world_size=size)
    seen: list[int] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Step):
            seen.append(event.step)

    task = Points()
    checkpoints = Checkpoints(Path(directory, f"checkpoints-{rank}"))
    # The last process alone gets the request to stop.
    outcome = Trainer(task, ODD, checkpoints, on_event, lambda: rank == size - 1 and len(seen) + 1 == stop_at).train()
    document = {
        "weights": task.weights,
        "rows": {step: sorted(rows) for step, rows in task.read.items()},
        "step": outcome.state.step,
        "stopped": outcome.stopped,
        "losses": [step.loss for step in outcome.state.history.steps],
        "checkpoints": sorted(path.name for path in Path(directory, f"checkpoints-{rank}").iterdir()),
    }
    Path(directory, f"{rank}.json").write_text(json.dumps(document), encoding="utf-8")
    distributed.barrier()
    distributed.destroy_process_group()


def _train_on_two(directory: Path, stop_at: int | None = None) -> list[dict[str, object]]:
    spawn(_train_rank, (2, str(directory), stop_at), nprocs=2)  # type: ignore[no-untyped-call]
    return [json.loads((directory / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]


def test_two_processes_make_the_steps_that_one_makes(tmp_path: Path) -> None:
    alone = Points()
    outcome = Trainer(alone, ODD, Checkpoints(tmp_path / "alone")).train()
    documents = _train_on_two(tmp_path)
    for document in documents:
        for ours, theirs in zip(alone.weights, document["weights"], strict=True):  # type: ignore[call-overload]
            assert theirs == pytest.approx(ours, abs=1e-5)
        assert document["losses"] == pytest.approx([step.loss for step in outcome.state.history.steps], abs=1e-5)
    first, second = (document["rows"] for document in documents)
    steps = -(-ROWS // 7)
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    for step, rows in alone.read.items():
        assert sorted(first[str(step)] + second.get(str(step), [])) == sorted(rows)
    assert 4 * steps - len(second) == 4  # those of a single row
    assert first.keys() == {str(step) for step in alone.read}
    assert documents[0]["checkpoints"] == [f"best-{outcome.state.best_step}"]
    assert documents[1]["checkpoints"] == []


def test_one_that_is_to_stop_stops_all(tmp_path: Path) -> None:
    documents = _train_on_two(tmp_path, stop_at=5)
    assert [(document["step"], document["stopped"]) for document in documents] == [(5, True)] * 2
    assert documents[0]["weights"] == documents[1]["weights"]


def test_one_process_has_all_rows_and_changes_nothing() -> None:
    tensor = torch.ones(3)
    parallel.all_reduce([tensor])
    assert (parallel.rank(), parallel.size(), list(parallel.shard([1, 2, 3]))) == (0, 1, [1, 2, 3])
    assert np.array_equal(tensor.numpy(), [1, 1, 1])
    assert parallel.broadcast(lambda: "x") == "x"
