"""Tuning of the head alone: the encoder is frozen and reads every row once, for any number of epochs.

The pooler and the classifier are tuned, on the vectors in `embedding_cache`.
"""

import copy
import hashlib
from collections.abc import Sequence

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from newsbert.core.events import Phase, Progress
from newsbert.core.types import FloatArray, IntArray
from newsbert.data.dataset import Dataset
from newsbert.errors import UsageError
from newsbert.evaluation import calibration, metrics
from newsbert.evaluation.metrics import Scores
from newsbert.inference.tokenization import SequenceTokenizer
from newsbert.training import bert_graph, embedding_cache, token_cache
from newsbert.training.bert import BertTraining
from newsbert.training.checkpoints import Checkpoints
from newsbert.training.context import TrainingContext
from newsbert.training.fine_tuning import TrainedModel, load_classifier
from newsbert.training.graphs import seed_torch
from newsbert.training.precision import choose_precision
from newsbert.training.trainer import Trainer


class _Head(nn.Module):
    """Head that turns the first token's vector into logits, with the model's own modules."""

    def __init__(self, model: transformers.PreTrainedModel) -> None:
        super().__init__()
        self.pooler, self.dropout, self.classifier = model.bert.pooler, model.dropout, model.classifier

    def forward(self, first: Tensor) -> Tensor:
        """Return logits `(batch, num_labels)` of vectors `(batch, hidden)`."""
        logits: Tensor = self.classifier(self.dropout(self.pooler(first[:, None])))
        return logits


def fit(context: TrainingContext, tokenizer: SequenceTokenizer, checkpoints: Checkpoints) -> TrainedModel:
    """Tune the head on the training rows and return the model with the selected one.

    Args:
        context: The training.
        tokenizer: From `prepare_tokenizer`.
        checkpoints: Store of the checkpoints; if it has one already, the training resumes from it.

    Raises:
        KeyboardInterrupt: If a stop is requested while the encoder computes vectors.
        ModelError: If the base model cannot be loaded as a classifier.
        UsageError: If its architecture is not BERT.
        NewsbertError: If the cache cannot be written to.
    """
    settings, dataset, base = context.settings, context.dataset, context.base_model
    transformers.set_seed(settings.seed)
    model = load_classifier(base, dataset.label_names).eval()
    if not bert_graph.supports(model):
        raise UsageError(
            f"--tune head is for BERT's architecture, and {base.name!r} is {model.config.model_type}",
            "the same command with --tune full",
        )
    precision = checkpoints.remember("precision", lambda: choose_precision(model, settings))
    model.requires_grad_(False)
    compute_model = copy.deepcopy(model).to(torch.bfloat16) if precision == "bf16" else model
    encoder = BertTraining(compute_model).eval()
    context.on_event(Phase("encoding"))

    def on_rows(done: int, rows: int) -> None:
        context.on_event(Progress("encoding", done, rows))
        if context.should_stop():
            raise KeyboardInterrupt

    weights = f"{base.sha256} {hashlib.sha256((base.path / 'config.json').read_bytes()).hexdigest()} {precision}"
    train, validation = (
        embedding_cache.of(
            encoder,
            weights,
            token_cache.of(tokenizer, split),
            token_cache.key(tokenizer, split),
            tokenizer.pad_id,
            on_rows,
        )
        for split in (dataset.train, dataset.scored)
    )
    task = _HeadTask(_Head(model).requires_grad_(True), train, validation, dataset, settings.seed)
    outcome = Trainer(task, settings, checkpoints, context.on_event, context.should_stop).train()
    return TrainedModel.from_outcome(model, outcome, precision)


class _HeadTask:
    """Task that tunes a head on vectors `(rows, hidden)` of training rows and scores it on those of validation rows."""

    def __init__(self, head: _Head, train: FloatArray, validation: FloatArray, dataset: Dataset, seed: int) -> None:
        self.module: nn.Module = head
        self.lengths: IntArray = np.zeros(len(train), np.int32)
        self._train, self._validation, self._dataset, self._seed = train, validation, dataset, seed

    def backward(self, rows: Sequence[int], step: int) -> float:
        """Set the gradients of the mean loss of these training rows, and return the loss."""
        self.module.train()
        seed_torch(self._seed, step)
        labels = torch.from_numpy(self._dataset.train.labels[rows].astype(np.int64))
        loss = nn.functional.cross_entropy(self.module(torch.from_numpy(self._train[rows])), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def score(self) -> Scores:
        """Score the validation rows."""
        self.module.eval()
        with torch.inference_mode():
            probabilities = calibration.softmax(self.module(torch.from_numpy(np.array(self._validation))).numpy())
        return metrics.score(probabilities, self._dataset.scored.labels, self._dataset.label_names)
