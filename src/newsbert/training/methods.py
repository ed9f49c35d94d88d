"""Tuning of an encoder by the method in the settings, in this process or in those of torchrun."""

import shutil
from dataclasses import replace
from pathlib import Path

import torch
import transformers

from newsbert.core import cpu, environment, temporary
from newsbert.core.settings import MAX_FEW_ROWS, TrainSettings
from newsbert.data.dataset import Dataset
from newsbert.inference.tokenization import SequenceTokenizer
from newsbert.training import bert_graph, contrastive, distributed, fine_tuning, head
from newsbert.training.base_model import BaseModel
from newsbert.training.checkpoints import Checkpoints
from newsbert.training.context import TrainingContext
from newsbert.training.fine_tuning import TrainedModel
from newsbert.training.tokenizer import prepare_tokenizer


def prepare(context: TrainingContext, bundle: Path) -> SequenceTokenizer:
    """Create a bundle's directory, empty but for the tokenizer's files, and return the tokenizer.

    Raises:
        NewsbertError: If the encoder has no tokenizer that can be used.
    """
    torch.set_num_threads(min(torch.get_num_threads(), cpu.cores()))  # respect a container's limit
    shutil.rmtree(bundle, ignore_errors=True)  # from a training that is resumed
    bundle.mkdir()
    return prepare_tokenizer(context.base_model, bundle, context.settings.max_length)


def tune(context: TrainingContext, tokenizer: SequenceTokenizer, checkpoints: Checkpoints) -> TrainedModel:
    """Tune the encoder.

    Args:
        context: The training.
        tokenizer: From `prepare`.
        checkpoints: Store of the checkpoints; if it has one already, the training resumes from it.

    Raises:
        NewsbertError: If the training fails.
    """
    fit = {"head": head.fit, "contrastive": contrastive.fit}.get(context.settings.tune, fine_tuning.fit)
    with distributed.process_group():
        return fit(context, tokenizer, checkpoints)


def choose(settings: TrainSettings, dataset: Dataset, base: BaseModel, workers: int = 1) -> TrainSettings:
    """Return the settings with the method that `auto` stands for: several processes tune labels, not pairs."""
    if settings.tune != "auto":
        return settings
    is_few = len(dataset.train) <= MAX_FEW_ROWS * len(dataset.label_names)
    is_alone = workers == 1 and environment.torchrun_rank() is None
    return replace(settings, tune="contrastive" if is_few and is_alone and _is_bert(base) else "full")


def _is_bert(base: BaseModel) -> bool:
    try:
        config = transformers.AutoConfig.from_pretrained(str(base.path), trust_remote_code=False)
    except (OSError, ValueError):  # reported when the model is loaded
        return False
    return bert_graph.supports_config(config)


def check(base: BaseModel, settings: TrainSettings) -> None:
    """Refuse a base model that cannot be tuned, before any slow step.

    Raises:
        ModelError: If it cannot be tuned.
        UsageError: If it cannot read as many tokens as the settings require.
    """
    with temporary.directory() as directory:
        fine_tuning.check(base, prepare_tokenizer(base, directory, settings.max_length))


def tune_part(context: TrainingContext, checkpoints: Checkpoints | None = None) -> TrainedModel:
    """Run this process's part of a distributed training, whose first process saves the checkpoints.

    Args:
        context: The training; the same in all processes.
        checkpoints: Store of the checkpoints; `None` in all processes but the first.

    Raises:
        NewsbertError: If the training fails.
    """
    with temporary.directory() as directory:
        tokenizer = prepare(context, directory / "bundle")
        return tune(context, tokenizer, checkpoints or Checkpoints(directory / "checkpoints"))
