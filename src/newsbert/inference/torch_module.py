"""A classifier as a PyTorch module that returns logits only."""

import torch
from transformers import PreTrainedModel


class LogitsOnly(torch.nn.Module):
    """A classifier as a function of two tensors, as required for graphs.

    Args:
        model: A Hugging Face sequence classifier.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits `(batch, num_labels)` of ids and mask `(batch, sequence)`."""
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def example_inputs(model: PreTrainedModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask `(2, 8)` for tracing a graph.

    The two rows have unequal lengths, and there are two because a size of 1 would be fixed in the graph.
    """
    input_ids = torch.arange(16, dtype=torch.int64).reshape(2, 8) % int(model.config.vocab_size)
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, 5:] = 0
    return input_ids, attention_mask
