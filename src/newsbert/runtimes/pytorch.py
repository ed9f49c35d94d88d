"""Eager PyTorch in fp32: the reference that every other graph is checked against."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from newsbert.errors import ModelError
from newsbert.evaluation import FloatArray
from newsbert.runtimes.tokenization import Ids


class TorchGraph:
    """A Hugging Face classifier in evaluation mode.

    Args:
        source: A directory in the Hugging Face layout, or a model that is loaded already.
        threads: Threads for one batch, for the whole process; torch's own choice if not given.

    Raises:
        ModelError: If the directory holds no such model.
    """

    def __init__(self, source: Path | PreTrainedModel, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        if isinstance(source, Path):
            try:
                source = AutoModelForSequenceClassification.from_pretrained(
                    str(source), use_safetensors=True, dtype=torch.float32
                )
            except (OSError, ValueError, SafetensorError) as error:
                raise ModelError(f"{source} cannot be loaded: {error}", "train or fetch the model again") from error
        self._model = source.eval()

    def logits(self, input_ids: Ids, attention_mask: Ids) -> FloatArray:
        """Return fp32 logits `(batch, num_labels)` of ids and mask `(batch, sequence)`."""
        with torch.inference_mode():
            output = self._model(input_ids=torch.from_numpy(input_ids), attention_mask=torch.from_numpy(attention_mask))
        logits: FloatArray = output.logits.float().numpy()
        return logits
