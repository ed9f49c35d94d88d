"""PyTorch: eager fp32 is the reference that every other runtime is checked against."""

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from newsbert.core.types import FloatArray
from newsbert.errors import ModelError
from newsbert.inference.tokenization import Ids

transformers.utils.logging.disable_progress_bar()

_POINTS = (32, 64, 128, 256)
"""On the way from no text to the text, at which gradients are taken."""

_POINTS_AT_ONCE = 16


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
                    str(source), use_safetensors=True, trust_remote_code=False, dtype=torch.float32
                )
            except (OSError, ValueError, SafetensorError) as error:
                raise ModelError(f"{source} cannot be loaded: {error}", "train or fetch the model again") from error
        self._bf16 = bf16
        self._eager: Any = source.eval()
        self._model = torch.compile(self._eager, dynamic=True) if compiled else self._eager

    def logits(self, input_ids: Ids, attention_mask: Ids) -> FloatArray:
        """Return fp32 logits `(batch, num_labels)` of ids and mask `(batch, sequence)`."""
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            output = self._model(input_ids=torch.from_numpy(input_ids), attention_mask=torch.from_numpy(attention_mask))
        logits: FloatArray = output.logits.float().numpy()
        return logits

    def integrated_gradients(
        self, input_ids: Ids, baseline_ids: Ids, label: int, temperature: float, tolerance: float
    ) -> tuple[FloatArray, float] | None:
        """Return what each token adds to a label's probability, `(sequence,)`, and what their sum lacks.

        In fp32, whatever answers, by twice as many points each time until the sum is right to the tolerance. Nothing
        where captum is not installed.

        Args:
            input_ids: The text, `(1, sequence)`.
            baseline_ids: What is no text, of the same shape.
            label: The index of the label.
            temperature: What the logits are divided by.
            tolerance: What the sum may lack.
        """
        try:
            from captum.attr import LayerIntegratedGradients
        except ImportError:
            return None

        def probability(ids: torch.Tensor) -> torch.Tensor:
            logits = self._eager(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            found: torch.Tensor = torch.softmax(logits / temperature, dim=-1)[:, label]
            return found

        way = LayerIntegratedGradients(probability, self._eager.get_input_embeddings())
        for points in _POINTS:
            attributions, gap = way.attribute(
                torch.from_numpy(input_ids),
                torch.from_numpy(baseline_ids),
                n_steps=points,
                internal_batch_size=_POINTS_AT_ONCE,
                return_convergence_delta=True,
            )
            # captum says what the sum has too much of.
            lacking = -float(gap.sum())
            if abs(lacking) <= tolerance:
                break
        tokens: FloatArray = attributions.sum(dim=-1)[0].detach().numpy()
        return tokens, lacking
