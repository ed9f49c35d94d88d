"""A BERT classifier, written as it is computed fastest where it answers.

The same weights and the same function as transformers' own, but for the order of a few operations:

- Every matrix of weights is applied to all tokens of a batch as one `Gemm` with its bias, which quantizes as a whole.
- Query, key and value are one such matrix, with the query's scale in it.
- Attention is one operation.
- Of the last layer only the first token is computed: the classifier looks at no other. With six layers this is a
  seventh of all the work.

Source: https://arxiv.org/abs/1810.04805; `transformers/models/bert/modeling_bert.py`.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.onnx.ops import attention
from transformers import PreTrainedModel

_MASKED = -1e9


def supports(model: PreTrainedModel) -> bool:
    """Whether `model` is a classifier that `BertGraph` can stand for."""
    config = model.config
    return (
        config.model_type == "bert"
        and hasattr(model, "classifier")
        and getattr(config, "position_embedding_type", "absolute") in {None, "absolute"}
        and not getattr(config, "is_decoder", False)
    )


def query_scale(config: Any) -> float:
    """Return what the matrices of queries are multiplied by."""
    return float((config.hidden_size // config.num_attention_heads) ** -0.5)


class BertGraph(nn.Module):
    """A `BertForSequenceClassification` in evaluation mode as a function of two tensors.

    Args:
        model: The classifier, for which `fits` is true.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.embeddings = model.bert.embeddings
        *layers, last = model.bert.encoder.layer
        self.layers = nn.ModuleList(
            [*(_Layer(layer, model.config) for layer in layers), _LastLayer(last, model.config)]
        )
        self.pooler = model.bert.pooler.dense
        self.classifier = model.classifier

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits `(batch, num_labels)` of ids and mask `(batch, sequence)`."""
        return cast(Tensor, self.classifier(torch.tanh(self.pooler(self.encode(input_ids, attention_mask)))))

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return what the last layer makes of the first token, `(batch, hidden)`."""
        length = input_ids.shape[1]
        bias = (1.0 - attention_mask[:, None, None, :].float()) * _MASKED  # (batch, 1, 1, sequence)
        hidden = self.embeddings(input_ids=input_ids)
        hidden = hidden.reshape(-1, hidden.shape[-1])  # (batch * sequence, hidden)
        for layer in self.layers:
            hidden = layer(hidden, bias, length)
        return cast(Tensor, hidden)


class _Layer(nn.Module):
    def __init__(self, layer: Any, config: Any) -> None:
        super().__init__()
        self.size = int(config.hidden_size)
        self.heads = int(config.num_attention_heads)
        own = layer.attention.self
        scale = query_scale(config)
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

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, queries: int, length: int) -> Tensor:
        """Attention of `queries` tokens of a sequence to all its `length` tokens."""
        query, key, value = (
            each.reshape(-1, count, self.size) for each, count in ((query, queries), (key, length), (value, length))
        )
        mask = bias.expand(-1, 1, queries, -1)
        attended, *_ = attention(query, key, value, mask, q_num_heads=self.heads, kv_num_heads=self.heads, scale=1.0)
        return attended.reshape(-1, self.size)

    def _feed(self, attended: Tensor, hidden: Tensor) -> Tensor:
        attended = self.attention_output.LayerNorm(self.attention_output.dense(attended) + hidden)
        fed = self.output.dense(self.intermediate(attended))
        return cast(Tensor, self.output.LayerNorm(fed + attended))


class _LastLayer(_Layer):
    def __init__(self, layer: Any, config: Any) -> None:
        super().__init__(layer, config)
        size = self.size
        # Matrices by themselves: slices would be computed in the graph, and would not be found by who quantizes it.
        self.query, self.key_value = nn.Linear(size, size), nn.Linear(size, 2 * size)
        for linear, part in ((self.query, slice(0, size)), (self.key_value, slice(size, None))):
            linear.weight = nn.Parameter(self.weight[part].detach().clone())
            linear.bias = nn.Parameter(self.bias[part].detach().clone())
        del self.weight, self.bias

    def forward(self, hidden: Tensor, bias: Tensor, length: int) -> Tensor:
        """The first token of every sequence: `(batch, hidden)` of `(batch * sequence, hidden)`."""
        key, value = torch.split(self.key_value(hidden), self.size, -1)
        hidden = hidden.reshape(-1, length, self.size)[:, 0]
        return self._feed(self._attend(self.query(hidden), key, value, bias, 1, length), hidden)
