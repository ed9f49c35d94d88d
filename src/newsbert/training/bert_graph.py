"""A BERT classifier, optimized for inference.

It has the same weights and computes the same function as transformers' own, with a few operations in another order:

- Every weight matrix is applied to all tokens of a batch as one `Gemm` with its bias, which quantizes as a whole.
- Query, key and value are one such matrix, which includes the query's scale.
- Attention is one operation.
- The last layer computes only the first token: the classifier reads no other. With six layers this saves a seventh of
  all the work.

Source: https://arxiv.org/abs/1810.04805; `transformers/models/bert/modeling_bert.py`.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.onnx.ops import attention
from transformers import PreTrainedConfig, PreTrainedModel

_MASK_BIAS = -1e9


def supports(model: PreTrainedModel) -> bool:
    """Return whether `BertGraph` can replace a classifier."""
    return hasattr(model, "classifier") and supports_config(model.config)


def supports_config(config: PreTrainedConfig) -> bool:
    """Return whether `BertGraph` can replace the classifier of an encoder with this configuration."""
    return (
        config.model_type == "bert"
        and getattr(config, "position_embedding_type", "absolute") in {None, "absolute"}
        and not getattr(config, "is_decoder", False)
    )


def query_scale(config: Any) -> float:
    """Return the factor of the query matrices."""
    return float((config.hidden_size // config.num_attention_heads) ** -0.5)


class BertGraph(nn.Module):
    """A `BertForSequenceClassification` in evaluation mode as a function of two tensors.

    Args:
        model: The classifier, for which `supports` is true.
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
        """Return the last layer's output for the first token, `(batch, hidden)`."""
        length = input_ids.shape[1]
        bias = (1.0 - attention_mask[:, None, None, :].float()) * _MASK_BIAS  # (batch, 1, 1, sequence)
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
        self_attention = layer.attention.self
        scale = query_scale(config)
        self.weight = nn.Parameter(
            torch.cat(
                [self_attention.query.weight * scale, self_attention.key.weight, self_attention.value.weight]
            ).detach()
        )
        self.bias = nn.Parameter(
            torch.cat([self_attention.query.bias * scale, self_attention.key.bias, self_attention.value.bias]).detach()
        )
        self.attention_output = layer.attention.output
        self.intermediate = layer.intermediate
        self.output = layer.output

    def forward(self, hidden: Tensor, bias: Tensor, length: int) -> Tensor:
        """Return all tokens, `(batch * sequence, hidden)` in and out."""
        query, key, value = torch.split(functional.linear(hidden, self.weight, self.bias), self.size, -1)
        attended = self._attend(query, key, value, bias, length, length)
        return self._feed(attended, hidden)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, queries: int, length: int) -> Tensor:
        """Return the attention of `queries` tokens of a sequence to all its `length` tokens."""
        query, key, value = (
            tensor.reshape(-1, count, self.size) for tensor, count in ((query, queries), (key, length), (value, length))
        )
        mask = bias.expand(-1, 1, queries, -1)
        attended, *_ = attention(query, key, value, mask, q_num_heads=self.heads, kv_num_heads=self.heads, scale=1.0)
        return attended.reshape(-1, self.size)

    def _feed(self, attended: Tensor, hidden: Tensor) -> Tensor:
        attended = self.attention_output.LayerNorm(self.attention_output.dense(attended) + hidden)
        transformed = self.output.dense(self.intermediate(attended))
        return cast(Tensor, self.output.LayerNorm(transformed + attended))


class _LastLayer(_Layer):
    def __init__(self, layer: Any, config: Any) -> None:
        super().__init__(layer, config)
        size = self.size
        # Separate matrices: slices would be computed in the graph, and quantization would miss them.
        self.query, self.key_value = nn.Linear(size, size), nn.Linear(size, 2 * size)
        for linear, part in ((self.query, slice(0, size)), (self.key_value, slice(size, None))):
            linear.weight = nn.Parameter(self.weight[part].detach().clone())
            linear.bias = nn.Parameter(self.bias[part].detach().clone())
        del self.weight, self.bias

    def forward(self, hidden: Tensor, bias: Tensor, length: int) -> Tensor:
        """Return the first token of every sequence: `(batch, hidden)` of `(batch * sequence, hidden)`."""
        key, value = torch.split(self.key_value(hidden), self.size, -1)
        hidden = hidden.reshape(-1, length, self.size)[:, 0]
        return self._feed(self._attend(self.query(hidden), key, value, bias, 1, length), hidden)
