"""Modules that compute a classifier's logits in training: our own for BERT, transformers' for others."""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from newsbert.training import bert_graph, lora
from newsbert.training.bert import BertTraining


class TrainingGraph(Protocol):
    """Module that computes what a loss needs, with dropout that can be seeded."""

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, /) -> Tensor:
        """Return outputs `(batch, size)` of ids and mask `(batch, sequence)`."""
        ...

    def begin(self, *seed: int) -> None:
        """Seed dropout."""
        ...

    def train(self, mode: bool = True) -> "TrainingGraph":
        """Turn dropout on or off."""
        ...

    def eval(self) -> "TrainingGraph":
        """Turn dropout off."""
        ...


def make_graph(model: PreTrainedModel) -> "BertTraining | TransformersGraph":
    """Return the fastest available graph for a classifier."""
    plain = lora.without_wrapper(model)
    return BertTraining(plain) if bert_graph.supports(plain) else TransformersGraph(model)


class TransformersGraph(nn.Module):
    """A classifier of an architecture that `BertTraining` does not support."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits `(batch, num_labels)` of ids and mask `(batch, sequence)`."""
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits

    def begin(self, *seed: int) -> None:
        """Seed dropout."""
        seed_torch(*seed)


def seed_torch(*seed: int) -> None:
    """Seed torch with these numbers."""
    torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]))
