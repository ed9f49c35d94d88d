"""Tuning the head alone: the encoder stays as it is and reads every row once, whatever the number of epochs.

What is tuned is the pooler and the classifier, on the vectors that `features` keeps.
"""

import copy
import hashlib
import itertools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from newsbert import bert_graph, evaluation, features
from newsbert.base_model import BaseModel
from newsbert.bert_graph import BertGraph
from newsbert.config import TrainSettings
from newsbert.data import Dataset
from newsbert.errors import UsageError
from newsbert.events import Evaluation, Event, Phase, Progress, Step
from newsbert.runtimes.tokenization import SequenceTokenizer
from newsbert.training import WARMUP_SHARE, Trained, classifier, evaluation_interval

_TOLD = 50
"""How often a training tells of its steps."""


class _Head(nn.Module):
    """From the first token's vector to logits; the modules are the model's own."""

    def __init__(self, model: transformers.PreTrainedModel) -> None:
        super().__init__()
        self.pooler, self.dropout, self.classifier = model.bert.pooler, model.dropout, model.classifier

    def forward(self, first: Tensor) -> Tensor:
        """Logits `(batch, num_labels)` of vectors `(batch, hidden)`."""
        logits: Tensor = self.classifier(self.dropout(self.pooler(first[:, None])))
        return logits


def fit(
    base: BaseModel,
    dataset: Dataset,
    tokenizer: SequenceTokenizer,
    settings: TrainSettings,
    on_event: Callable[[Event], None],
    stop: Callable[[], bool],
) -> Trained:
    """Tune the head on the training rows and return the best by macro F1 on the validation rows.

    Args:
        base: The encoder.
        dataset: Rows with their label names.
        tokenizer: From `training.prepare_tokenizer`.
        settings: Epochs, batch size, learning rate and seed.
        on_event: Called after steps and evaluations.
        stop: Asked after every step; when it answers true, the loop evaluates, keeps the best and returns.

    Raises:
        KeyboardInterrupt: If it is to stop before there is anything to keep.
        ModelError: If the base model cannot be loaded as a classifier.
        UsageError: If it is none of BERT's architecture.
        NewsbertError: If the cache cannot be written to.
    """
    transformers.set_seed(settings.seed)
    model = classifier(base, dataset.label_names).eval()
    if not bert_graph.fits(model):
        raise UsageError(
            f"--tune head is for BERT's architecture, and {base.name!r} is {model.config.model_type}",
            "newsbert train --tune full",
        )
    started = time.perf_counter()
    model.requires_grad_(False)
    encoder = BertGraph(model).eval()
    on_event(Phase("encoding"))

    def on_rows(done: int, rows: int) -> None:
        on_event(Progress("encoding", done, rows))
        if stop():
            raise KeyboardInterrupt

    weights = base.sha256 + hashlib.sha256((base.path / "config.json").read_bytes()).hexdigest()
    vectors = [
        features.of(encoder, weights, tokenizer.encode(split.texts), tokenizer.pad_id, on_rows)
        for split in (dataset.train, dataset.validation)
    ]
    train, validation = (torch.from_numpy(np.array(each)) for each in vectors)
    labels = torch.tensor(dataset.train.labels)
    head = _Head(model).requires_grad_(True)
    per_epoch = math.ceil(len(train) / settings.batch_size)
    total = max(1, math.ceil(settings.epochs * per_epoch))
    interval, told = evaluation_interval(total, settings.epochs), math.ceil(total / _TOLD)
    optimizer = _optimizer(head, settings)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, math.ceil(WARMUP_SHARE * total), total)
    best, best_step, best_state = -math.inf, 0, copy.deepcopy(head.state_dict())
    losses: list[float] = []
    stopped = False
    began = time.monotonic()
    for step, rows in enumerate(itertools.islice(_batches(len(train), settings), total), 1):
        head.train()
        loss = nn.functional.cross_entropy(head(train[rows]), labels[rows])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        stopped = step < total and stop()
        last = stopped or step == total
        if last or step % told == 0:
            left = (time.monotonic() - began) / step * (total - step)
            rate = float(schedule.get_last_lr()[0])
            on_event(Step(step, total, step / per_epoch, sum(losses) / len(losses), rate, left))
            losses.clear()
        if last or step % interval == 0:
            scores = _score(head, validation, dataset)
            better = scores.f1_macro > best
            if better:
                best, best_step, best_state = scores.f1_macro, step, copy.deepcopy(head.state_dict())
            on_event(Evaluation(step, step / per_epoch, scores.accuracy, scores.f1_macro, scores.loss, better))
        if last:
            break
    head.load_state_dict(best_state)
    return Trained(model.eval(), best_step, stopped, time.perf_counter() - started, "fp32")


def _optimizer(head: _Head, settings: TrainSettings) -> torch.optim.Optimizer:
    """As the Trainer makes it: biases do not decay."""
    groups: list[dict[str, Any]] = [
        {"params": [each for each in head.parameters() if each.ndim > 1]},
        {"params": [each for each in head.parameters() if each.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, settings.peak_learning_rate, weight_decay=0.01, fused=True)


def _batches(rows: int, settings: TrainSettings) -> Iterator[Tensor]:
    """Indices of the rows of one batch after the other, every row once an epoch, without end."""
    generator = torch.Generator().manual_seed(settings.seed)
    while True:
        yield from torch.randperm(rows, generator=generator).split(settings.batch_size)  # type: ignore[no-untyped-call]


def _score(head: _Head, validation: Tensor, dataset: Dataset) -> evaluation.Scores:
    head.eval()
    with torch.inference_mode():
        probabilities = evaluation.softmax(head(validation).numpy())
    return evaluation.score(probabilities, dataset.validation.labels, dataset.label_names)
