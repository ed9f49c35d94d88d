"""A BERT classifier, optimized for training on a CPU.

It has the same weights and computes the same function as transformers' own in training mode, with three differences:

- The last layer computes only the first token, forwards and backwards: the classifier reads no other.
- Query, key and value are one matrix product.
- Dropout masks are parts of a table of random elements: torch's own dropout takes as long as a third of the matrix
  products.

Source: https://arxiv.org/abs/1810.04805; `transformers/models/bert/modeling_bert.py`.
"""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

_MASK_BIAS = -1e9

_MIN_TABLE = 1 << 22
"""Minimum number of elements of a table of dropout masks: several times those of most masks."""

_ALIGNMENT = 32
"""Multiple of elements at which a mask begins: reads from memory are faster there."""


class Dropout:
    """Dropout whose masks begin at random places of a table of random elements; see `begin`.

    Args:
        p: Fraction of the elements to drop; rounded to 256ths.
    """

    def __init__(self, p: float) -> None:
        self._dropped_of_256 = round(p * 256)
        self._tables: dict[torch.dtype, Tensor] = {}
        self._generator = np.random.Generator(np.random.SFC64(0))
        self.on = True

    def begin(self, *seed: int) -> None:
        """Seed the places of the masks."""
        self._generator = np.random.Generator(np.random.SFC64(seed))

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return `hidden` with some elements zeroed and the others scaled up accordingly."""
        if not (self.on and self._dropped_of_256):
            return hidden
        count = hidden.numel()
        # The size depends on the mask alone, so that a resumed training takes the same places.
        size = max(_MIN_TABLE, 1 << (2 * count - 1).bit_length())
        start = int(self._generator.integers((size - count) // _ALIGNMENT)) * _ALIGNMENT
        return hidden * self._get_table(size, hidden.dtype)[start : start + count].view(hidden.shape)

    def _get_table(self, size: int, dtype: torch.dtype) -> Tensor:
        """Return a table of this size or more; a larger one begins with the elements of a smaller one."""
        table = self._tables.get(dtype)
        if table is None or len(table) < size:
            noise = np.random.Generator(np.random.SFC64(0)).integers(0, 1 << 64, size // 8, np.uint64).view(np.uint8)
            scale = 256 / (256 - self._dropped_of_256)
            table = torch.from_numpy(noise).ge(self._dropped_of_256).to(dtype).mul_(scale)
            self._tables[dtype] = table
        return table


class BertTraining(nn.Module):
    """A `BertForSequenceClassification` as a function of two tensors, with the model's own parameters.

    Args:
        model: A classifier for which `bert_graph.supports` is true.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        config = model.config
        self.embeddings = model.bert.embeddings
        self.layers = model.bert.encoder.layer
        self.pooler = model.bert.pooler
        self.classifier = model.classifier
        self.heads = int(config.num_attention_heads)
        classifier_dropout = getattr(config, "classifier_dropout", None)
        self.hidden_dropout = Dropout(config.hidden_dropout_prob)
        self.attention_dropout = Dropout(config.attention_probs_dropout_prob)
        self.classifier_dropout = Dropout(
            config.hidden_dropout_prob if classifier_dropout is None else classifier_dropout
        )
        self._dropouts = (self.hidden_dropout, self.attention_dropout, self.classifier_dropout)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits `(batch, num_labels)` of ids and mask `(batch, sequence)`."""
        first = self.encode(input_ids, attention_mask)
        return cast(Tensor, self.classifier(self.classifier_dropout(self.pooler(first[:, None]))))

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the last layer's output for the first token, `(batch, hidden)`."""
        embeddings = self.embeddings
        length = input_ids.shape[1]
        hidden = embeddings.word_embeddings(input_ids) + embeddings.position_embeddings.weight[:length]
        hidden = self.hidden_dropout(embeddings.LayerNorm(hidden + embeddings.token_type_embeddings.weight[0]))
        mask = ((1.0 - attention_mask.to(hidden.dtype)) * _MASK_BIAS)[:, None, :]  # (batch, 1, sequence)
        *layers, last = self.layers
        for layer in layers:
            hidden = self._apply_layer(layer, hidden, mask, first_only=False)
        return self._apply_layer(last, hidden, mask, first_only=True)[:, 0]

    def begin(self, *seed: int) -> None:
        """Seed the dropout masks."""
        for number, dropout in enumerate(self._dropouts):
            dropout.begin(*seed, number)

    def train(self, mode: bool = True) -> "BertTraining":
        """Set training mode, which turns dropout on or off."""
        for dropout in self._dropouts:
            dropout.on = mode
        return super().train(mode)

    def _apply_layer(self, layer: Any, hidden: Tensor, mask: Tensor, *, first_only: bool) -> Tensor:
        """Apply a layer to `(batch, sequence, hidden)`; return all tokens, or only the first."""
        attention, attention_output = layer.attention.self, layer.attention.output
        if first_only:
            key, value = _apply_together(hidden, attention.key, attention.value)
            hidden = hidden[:, :1]
            query = attention.query(hidden)
        else:
            query, key, value = _apply_together(hidden, attention.query, attention.key, attention.value)
        attended = self._attend(query, key, value, mask)
        hidden = attention_output.LayerNorm(self.hidden_dropout(attention_output.dense(attended)) + hidden)
        transformed = layer.output.dense(layer.intermediate(hidden))
        return cast(Tensor, layer.output.LayerNorm(self.hidden_dropout(transformed) + hidden))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Return the attention of `(batch, queries, hidden)` to `(batch, sequence, hidden)`."""
        batch, queries, size = query.shape
        query, key, value = (
            projection.view(batch, -1, self.heads, size // self.heads)
            .transpose(1, 2)
            .reshape(batch * self.heads, -1, size // self.heads)
            for projection in (query, key, value)
        )
        mask = mask[:, None].expand(batch, self.heads, 1, -1).reshape(batch * self.heads, 1, -1)
        scores = torch.baddbmm(mask, query, key.transpose(1, 2), alpha=(size // self.heads) ** -0.5)
        attended = torch.bmm(self.attention_dropout(scores.softmax(-1)), value)
        return attended.view(batch, self.heads, queries, -1).transpose(1, 2).reshape(batch, queries, size)


def _apply_together(hidden: Tensor, *matrices: nn.Module) -> Sequence[Tensor]:
    """Apply matrices of the same size to `hidden` in one product; one by one if they have adapters."""
    linears = [matrix for matrix in matrices if type(matrix) is nn.Linear]
    if len(linears) < len(matrices):
        return [matrix(hidden) for matrix in matrices]
    weight, bias = (torch.cat([getattr(linear, name) for linear in linears]) for name in ("weight", "bias"))
    return nn.functional.linear(hidden, weight, bias).chunk(len(linears), -1)
