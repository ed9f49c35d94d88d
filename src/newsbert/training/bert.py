"""A BERT classifier, optimized for training on a CPU.

It has the same weights and computes the same function as transformers' own in training mode, with two differences:

- The last layer computes only the first token, forwards and backwards: the classifier reads no other.
- NumPy draws the dropout masks from a seed, eight elements at a time: torch's own dropout takes as long as a third of
  the matrix products.

Source: https://arxiv.org/abs/1810.04805; `transformers/models/bert/modeling_bert.py`.
"""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

_MASK_BIAS = -1e9


class Dropout:
    """Dropout with masks from a seeded generator; see `begin`.

    Args:
        p: Fraction of the elements to drop; rounded to 256ths.
    """

    def __init__(self, p: float) -> None:
        self._dropped_of_256 = round(p * 256)
        self._scale = 256 / (256 - self._dropped_of_256)
        self._generator = np.random.Generator(np.random.SFC64(0))
        self.on = True

    def begin(self, *seed: int) -> None:
        """Seed the generator of the masks."""
        self._generator = np.random.Generator(np.random.SFC64(seed))

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return `hidden` with some elements zeroed and the others scaled up accordingly."""
        if not (self.on and self._dropped_of_256):
            return hidden
        count = hidden.numel()
        noise = self._generator.integers(0, 1 << 64, -(-count // 8), np.uint64, endpoint=False).view(np.uint8)[:count]
        mask = torch.from_numpy(noise).ge(self._dropped_of_256).to(hidden.dtype).mul_(self._scale)
        return hidden * mask.view(hidden.shape)


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
        key, value = attention.key(hidden), attention.value(hidden)
        if first_only:
            hidden = hidden[:, :1]
        attended = self._attend(attention.query(hidden), key, value, mask)
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
