"""A BERT classifier, written as it is computed fastest where it answers.

The same weights and the same function as transformers' own, but for the order of a few operations:

- Every matrix of weights is applied to all tokens of a batch as one `Gemm` with its bias, which quantizes as a whole.
- Query, key and value are one such matrix, with the query's scale in it.
- Of the last layer only the first token is computed: the classifier looks at no other. With six layers this is a
  seventh of all the work.

Source: https://arxiv.org/abs/1810.04805; `transformers/models/bert/modeling_bert.py`.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

_MASKED = -1e9


def fits(model: PreTrainedModel) -> bool:
    """Whether `model` is a classifier that `BertGraph` can stand for."""
    config = model.config
    return (
        config.model_type == "bert"
        and hasattr(model, "classifier")
        and getattr(config, "position_embedding_type", "absolute") in {None, "absolute"}
        and not getattr(config, "is_decoder", False)
    )


class BertGraph(nn.Module):
    """A `BertForSequenceClassification` in evaluation mode as a function of two tensors.

    Args:
        model: The classifier, for which `fits` is true.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.embeddings = model.bert.embeddings
        self.layers = nn.ModuleList([_Layer(layer, model.config) for layer in model.bert.encoder.layer])
        self.pooler = model.bert.pooler.dense
        self.classifier = model.classifier

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits `(batch, num_labels)` of ids and mask `(batch, sequence)`."""
        length = input_ids.shape[1]
        bias = (1.0 - attention_mask[:, None, None, :].float()) * _MASKED  # (batch, 1, 1, sequence)
        hidden = self.embeddings(input_ids=input_ids)
        hidden = hidden.reshape(-1, hidden.shape[-1])  # (batch * sequence, hidden)
        *layers, last = self.layers
        for layer in layers:
            hidden = layer(hidden, bias, length)
        first = cast("_Layer", last).first(hidden, bias, length)
        return cast(Tensor, self.classifier(torch.tanh(self.pooler(first))))


class _Layer(nn.Module):
    def __init__(self, layer: Any, config: Any) -> None:
        super().__init__()
        self.size = int(config.hidden_size)
        self.heads = int(config.num_attention_heads)
        own = layer.attention.self
        scale = (self.size // self.heads) ** -0.5
        self.weight = nn.Parameter(torch.cat([own.query.weight * scale, own.key.weight, own.value.weight]).detach())
        self.bias = nn.Parameter(torch.cat([own.query.bias * scale, own.key.bias, own.value.bias]).detach())
        self.attention_output = layer.attention.output
        self.intermediate = layer.intermediate
        self.output = layer.output

    def forward(self, hidden: Tensor, bias: Tensor, length: int) -> Tensor:
        """All tokens: `(batch * sequence, hidden)` in and out."""
        query, key, value = torch.split(functional.linear(hidden, self.weight, self.bias), self.size, -1)
        attended = self._attend(query, key, value, bias, length, length)
        return self._feed(attended, hidden)

    def first(self, hidden: Tensor, bias: Tensor, length: int) -> Tensor:
        """The first token of every sequence: `(batch, hidden)` of `(batch * sequence, hidden)`."""
        size = self.size
        # The export keeps a slice of weights as a node of its own; a copy is a matrix by itself.
        key_value = functional.linear(hidden, self.weight[size:].clone(), self.bias[size:].clone())
        key, value = torch.split(key_value, size, -1)
        hidden = hidden.reshape(-1, length, size)[:, 0]
        query = functional.linear(hidden, self.weight[:size].clone(), self.bias[:size].clone())
        return self._feed(self._attend(query, key, value, bias, 1, length), hidden)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, queries: int, length: int) -> Tensor:
        """Attention of `queries` tokens of a sequence to all its `length` tokens."""
        query, key, value = (
            each.reshape(-1, count, self.heads, self.size // self.heads).transpose(1, 2)
            for each, count in ((query, queries), (key, length), (value, length))
        )
        weights = torch.softmax(torch.matmul(query, key.transpose(-1, -2)) + bias, -1)
        return torch.matmul(weights, value).transpose(1, 2).reshape(-1, self.size)

    def _feed(self, attended: Tensor, hidden: Tensor) -> Tensor:
        attended = self.attention_output.LayerNorm(self.attention_output.dense(attended) + hidden)
        fed = self.output.dense(self.intermediate(attended))
        return cast(Tensor, self.output.LayerNorm(fed + attended))
