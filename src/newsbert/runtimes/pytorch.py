"""PyTorch: eager fp32 is the reference that every other runtime is checked against."""

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from newsbert.errors import ModelError
from newsbert.evaluation import FloatArray
from newsbert.runtimes.tokenization import Ids

transformers.utils.logging.disable_progress_bar()


class TorchGraph:
    """A Hugging Face classifier in evaluation mode.

    Args:
        source: A directory in the Hugging Face layout, or a model that is loaded already.
        threads: Threads for one batch, for the whole process; torch's own choice if not given.
        bf16: Whether to compute in bfloat16 what loses little by it.
        compiled: Whether to have torch compile it, which takes a C++ compiler and its time with the first batches.

    Raises:
        ModelError: If the directory holds no such model.
    """

    def __init__(
        self,
        source: Path | PreTrainedModel,
        threads: int | None = None,
        *,
        bf16: bool = False,
        compiled: bool = False,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        if isinstance(source, Path):
            try:
                source = AutoModelForSequenceClassification.from_pretrained(
                    str(source), use_safetensors=True, dtype=torch.float32
                )
            except (OSError, ValueError, SafetensorError) as error:
                raise ModelError(f"{source} cannot be loaded: {error}", "train or fetch the model again") from error
        self._bf16 = bf16
        model: Any = source.eval()
        self._model = torch.compile(model, dynamic=True) if compiled else model

    def logits(self, input_ids: Ids, attention_mask: Ids) -> FloatArray:
        """Return fp32 logits `(batch, num_labels)` of ids and mask `(batch, sequence)`."""
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            output = self._model(input_ids=torch.from_numpy(input_ids), attention_mask=torch.from_numpy(attention_mask))
        logits: FloatArray = output.logits.float().numpy()
        return logits
