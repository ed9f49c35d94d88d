"""`newsbert train` as tests start it, to interrupt it: it can wait after a step."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.preloaded import BEFORE

PAUSE = """
import pathlib, time
from newsbert.training.trainer import Trainer

Trainer.min_checkpoint_interval_s = 0.0  # a checkpoint at every evaluation
make_step = Trainer._make_step

def pause(trainer):
    while trainer.state.step == STEP and not pathlib.Path("go").exists():
        time.sleep(0.05)
    return make_step(trainer)

Trainer._make_step = pause
"""
"""Waits before a step until there is a file `go`."""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(preloaded_command: list[str]) -> Iterator[Start]:
    """Start `newsbert ARGUMENTS`, which waits after a step if there is one; it is killed after the test."""
    with contextlib.ExitStack() as stack:

        def begin(*arguments: object, pause_after: int | None = None, before: str = "") -> "subprocess.Popen[str]":
            if pause_after is not None:
                before += PAUSE.replace("STEP", str(pause_after))
            command = [*preloaded_command, *map(str, arguments)]
            environment = {**os.environ, BEFORE: before}
            process = stack.enter_context(
                subprocess.Popen(
                    command,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    encoding="utf-8",
                    env=environment,
                )
            )
            stack.callback(process.kill)
            return process

        yield begin


@pytest.fixture
def arguments(tiny_encoder: Path, labelled_file: Path) -> tuple[object, ...]:
    """A training of 100 steps, ten an epoch."""
    return (
        "train", "--data", labelled_file, "--base-model", tiny_encoder, "--max-length", "48", "--batch-size", "8",
        "--epochs", "10",
    )  # fmt: skip


def wait_for(process: "subprocess.Popen[str]", *signs: str) -> None:
    """Wait until a process prints one of these."""
    assert process.stderr is not None
    for line in process.stderr:
        if any(sign in line for sign in signs):
            return
    pytest.fail(f"it ended without printing any of {signs}")


def left_behind(directory: Path) -> list[str]:
    """Return what is in the directory of bundles, the hidden working directories too."""
    return [path.name for path in directory.glob("bundles/*")] + [path.name for path in directory.glob("bundles/.*")]
