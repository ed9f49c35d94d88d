"""Tune an encoder by the method that the settings name, in this process or in those of torchrun."""

import shutil
from pathlib import Path

import torch

from newsbert.core import cpu, temporary
from newsbert.core.settings import TrainSettings
from newsbert.inference.tokenization import SequenceTokenizer
from newsbert.training import distributed, fine_tuning, head
from newsbert.training.base_model import BaseModel
from newsbert.training.checkpoints import Checkpoints
from newsbert.training.context import TrainingContext
from newsbert.training.fine_tuning import TrainedModel
from newsbert.training.tokenizer import prepare_tokenizer


def prepare(context: TrainingContext, bundle: Path) -> SequenceTokenizer:
    """Make a bundle's directory anew, with the tokenizer's files in it, and return the tokenizer.

    Raises:
        NewsbertError: If the encoder has no tokenizer that can be used.
    """
    torch.set_num_threads(min(torch.get_num_threads(), cpu.cores()))  # a container's limit counts
    shutil.rmtree(bundle, ignore_errors=True)  # of a training that resumes
    bundle.mkdir()
    return prepare_tokenizer(context.base_model, bundle, context.settings.max_length)


def tune(context: TrainingContext, tokenizer: SequenceTokenizer, checkpoints: Checkpoints) -> TrainedModel:
    """Tune the encoder.

    Args:
        context: The training.
        tokenizer: From `prepare`.
        checkpoints: Where they are saved; if there is one already, the training resumes from it.

    Raises:
        NewsbertError: If it cannot be done.
    """
    fit = head.fit if context.settings.tune == "head" else fine_tuning.fit
    with distributed.process_group():
        return fit(context, tokenizer, checkpoints)


def check(base: BaseModel, settings: TrainSettings) -> None:
    """Refuse a base model that cannot be tuned, before anything slow is done.

    Raises:
        ModelError: If it cannot be tuned.
        UsageError: If it cannot read as many tokens.
    """
    with temporary.directory() as directory:
        fine_tuning.check(base, prepare_tokenizer(base, directory, settings.max_length))


def tune_part(context: TrainingContext, checkpoints: Checkpoints | None = None) -> TrainedModel:
    """Do a process's part of a training that several share, of which the first one saves the checkpoints.

    Args:
        context: The training; the same in all of them.
        checkpoints: Where they are saved; `None` in all but the first.

    Raises:
        NewsbertError: If it cannot be done.
    """
    with temporary.directory() as directory:
        tokenizer = prepare(context, directory / "bundle")
        return tune(context, tokenizer, checkpoints or Checkpoints(directory / "checkpoints"))
