"""A BERT classifier, written as it is trained fastest on a CPU.

The same weights and the same function as transformers' own in training mode, but for these:

- Of the last layer only the first token is computed, forwards and backwards: the classifier looks at no other.
- What dropout leaves out is drawn by NumPy, eight elements at a time, and told by a seed: torch's own takes as long as
  a third of the matrix products.

Source: https://arxiv.org/abs/1810.04805; `transformers/models/bert/modeling_bert.py`.
"""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

_MASKED = -1e9


class Dropout:
    """Leaves out elements at random, of which `begin` says what they are.

    Args:
        share: Of the elements; rounded to 256ths.
    """

    def __init__(self, share: float) -> None:
        self._out_of_256 = round(share * 256)
        self._scale = 256 / (256 - self._out_of_256)
        self._generator = np.random.Generator(np.random.SFC64(0))
        self.on = True

    def begin(self, *seed: int) -> None:
        """Draw from here on what this seed says."""
        self._generator = np.random.Generator(np.random.SFC64(seed))

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return `hidden` without some elements, the others larger by as much."""
        if not (self.on and self._out_of_256):
            return hidden
        count = hidden.numel()
        drawn = self._generator.integers(0, 1 << 64, -(-count // 8), np.uint64, endpoint=False).view(np.uint8)[:count]
        kept = torch.from_numpy(drawn).ge(self._out_of_256).to(hidden.dtype).mul_(self._scale)
        return hidden * kept.view(hidden.shape)


class BertTraining(nn.Module):
    """A `BertForSequenceClassification` as a function of two tensors; the parameters are the model's own.

    Args:
        model: A classifier for which `bert_graph.fits` is true.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        config = model.config
        self.embeddings = model.bert.embeddings
        self.layers = model.bert.encoder.layer
        self.pooler = model.bert.pooler
        self.classifier = model.classifier
        self.heads = int(config.num_attention_heads)
        own = getattr(config, "classifier_dropout", None)
        self.hidden_dropout = Dropout(config.hidden_dropout_prob)
        self.attention_dropout = Dropout(config.attention_probs_dropout_prob)
        self.classifier_dropout = Dropout(config.hidden_dropout_prob if own is None else own)
        self._dropouts = (self.hidden_dropout, self.attention_dropout, self.classifier_dropout)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits `(batch, num_labels)` of ids and mask `(batch, sequence)`."""
        first = self.encode(input_ids, attention_mask)
        return cast(Tensor, self.classifier(self.classifier_dropout(self.pooler(first[:, None]))))

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return what the last layer makes of the first token, `(batch, hidden)`."""
        embeddings = self.embeddings
        length = input_ids.shape[1]
        hidden = embeddings.word_embeddings(input_ids) + embeddings.position_embeddings.weight[:length]
        hidden = self.hidden_dropout(embeddings.LayerNorm(hidden + embeddings.token_type_embeddings.weight[0]))
        mask = ((1.0 - attention_mask.to(hidden.dtype)) * _MASKED)[:, None, :]  # (batch, 1, sequence)
        *layers, last = self.layers
        for layer in layers:
            hidden = self._layer(layer, hidden, mask, first_only=False)
        return self._layer(last, hidden, mask, first_only=True)[:, 0]

    def begin(self, *seed: int) -> None:
        """Let dropout draw what this seed says."""
        for number, each in enumerate(self._dropouts):
            each.begin(*seed, number)

    def train(self, mode: bool = True) -> "BertTraining":
        """Turn dropout on or off."""
        for each in self._dropouts:
            each.on = mode
        return super().train(mode)

    def _layer(self, layer: Any, hidden: Tensor, mask: Tensor, *, first_only: bool) -> Tensor:
        """One layer: `(batch, sequence, hidden)` in; of all tokens, or of the first only, out."""
        own, output = layer.attention.self, layer.attention.output
        key, value = own.key(hidden), own.value(hidden)
        if first_only:
            hidden = hidden[:, :1]
        attended = self._attend(own.query(hidden), key, value, mask)
        hidden = output.LayerNorm(self.hidden_dropout(output.dense(attended)) + hidden)
        fed = layer.output.dense(layer.intermediate(hidden))
        return cast(Tensor, layer.output.LayerNorm(self.hidden_dropout(fed) + hidden))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Attention of `(batch, queries, hidden)` to `(batch, sequence, hidden)`."""
        batch, queries, size = query.shape
        query, key, value = (
            each.view(batch, -1, self.heads, size // self.heads)
            .transpose(1, 2)
            .reshape(batch * self.heads, -1, size // self.heads)
            for each in (query, key, value)
        )
        mask = mask[:, None].expand(batch, self.heads, 1, -1).reshape(batch * self.heads, 1, -1)
        scores = torch.baddbmm(mask, query, key.transpose(1, 2), alpha=(size // self.heads) ** -0.5)
        attended = torch.bmm(self.attention_dropout(scores.softmax(-1)), value)
        return attended.view(batch, self.heads, queries, -1).transpose(1, 2).reshape(batch, queries, size)
