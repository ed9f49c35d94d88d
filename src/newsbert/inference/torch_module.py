"""A classifier as a PyTorch module that returns logits only."""

import torch
from transformers import PreTrainedModel


class LogitsOnly(torch.nn.Module):
    """A classifier as a function of two tensors, as graphs want it.

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
    """Ids and mask `(2, 8)` to trace a graph with: two rows of unequal length, since a size of 1 would be fixed."""
    input_ids = torch.arange(16, dtype=torch.int64).reshape(2, 8) % int(model.config.vocab_size)
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, 5:] = 0
    return input_ids, attention_mask
