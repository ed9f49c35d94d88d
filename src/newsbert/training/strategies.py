"""Tuning an encoder as settings say: in this process, in those of torchrun, or in workers of Ray."""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from newsbert.core import cpu, temporary
from newsbert.core.events import Event
from newsbert.core.settings import RaySettings, TrainSettings
from newsbert.data.dataset import Dataset
from newsbert.inference.tokenization import SequenceTokenizer
from newsbert.training import base_model, distributed, fine_tuning, head
from newsbert.training.base_model import BaseModel
from newsbert.training.checkpoints import Checkpoints
from newsbert.training.fine_tuning import Trained
from newsbert.training.tokenizer import prepare_tokenizer


def tune(
    base: BaseModel,
    rows: Dataset,
    settings: TrainSettings,
    shared: RaySettings,
    bundle: Path,
    checkpoints: Checkpoints,
    on_event: Callable[[Event], None],
    stop: Callable[[], bool],
) -> tuple[Trained, SequenceTokenizer]:
    """Tune, and leave the tokenizer's files in the bundle's directory.

    Args:
        base: The encoder.
        rows: Labelled texts.
        settings: What is tuned, for how long, and how.
        shared: How many workers of Ray do it, and where.
        bundle: A directory that is made anew.
        checkpoints: Where they are kept; if there is one already, the training goes on from it.
        on_event: Called after steps and evaluations.
        stop: Asked after every step.

    Raises:
        NewsbertError: If it cannot be done.
    """
    torch.set_num_threads(min(torch.get_num_threads(), cpu.cores()))  # a container's limit counts
    shutil.rmtree(bundle, ignore_errors=True)  # of a training that goes on
    bundle.mkdir()
    tokenizer = prepare_tokenizer(base, bundle, settings.max_length)
    if shared.workers > 1:
        from newsbert.training import ray_trainer

        return ray_trainer.fit(settings, rows.digest, shared, checkpoints, on_event, stop), tokenizer
    fit = head.fit if settings.tune == "head" else fine_tuning.fit
    with distributed.joined():
        return fit(base, rows, tokenizer, settings, checkpoints, on_event, stop), tokenizer


def check(base: BaseModel, settings: TrainSettings) -> None:
    """Refuse a base model that cannot be tuned, before anything slow is done.

    Raises:
        ModelError: If it cannot be tuned.
        UsageError: If it cannot read as many tokens.
    """
    with temporary.directory() as directory:
        fine_tuning.check(base, prepare_tokenizer(base, directory, settings.max_length))


def help_out(
    settings: TrainSettings,
    rows: Dataset,
    checkpoints: Checkpoints | None,
    on_event: Callable[[Event], None],
    stop: Callable[[], bool],
) -> Trained:
    """Do a process's part of a training that several share, of which the first one's checkpoints are kept.

    Args:
        settings: The training's.
        rows: The same in all of them.
        checkpoints: Where they are kept; nothing in all but the first.
        on_event: Called after steps and evaluations.
        stop: Asked after every step.

    Raises:
        NewsbertError: If it cannot be done.
    """
    with temporary.directory() as directory:
        kept = checkpoints or Checkpoints(directory / "checkpoints")
        base = base_model.find(settings.base_model)
        trained, _ = tune(base, rows, settings, RaySettings(), directory / "bundle", kept, on_event, stop)
        return trained
