"""PyTorch: eager fp32 is the reference for all other runtimes."""

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

_NUM_POINTS = (32, 64, 128, 256)
"""Numbers of points on the path from the baseline to the text at which gradients are computed."""

_POINTS_PER_BATCH = 16


class TorchGraph:
    """A Hugging Face classifier in evaluation mode.

    Args:
        source: Directory in the Hugging Face layout, or a loaded model.
        threads: Number of threads for one batch, for the whole process; defaults to torch's own choice.
        bf16: Whether to compute in bfloat16 where it loses little.
        compiled: Whether torch compiles the model. This requires a C++ compiler, and slows down the first batches.

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
        """Return the tokens' contributions to a label's probability, `(sequence,)`, and the gap of their sum.

        Gradients are always computed on the eager fp32 model. The number of points doubles until the gap is within the
        tolerance. The result is `None` if captum is not installed.

        Args:
            input_ids: Token ids of the text, `(1, sequence)`.
            baseline_ids: Token ids of the baseline, of the same shape.
            label: The index of the label.
            temperature: Divisor of the logits.
            tolerance: Maximum gap of the sum.
        """
        try:
            from captum.attr import LayerIntegratedGradients
        except ImportError:
            return None

        def probability(ids: torch.Tensor) -> torch.Tensor:
            logits = self._eager(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            probabilities: torch.Tensor = torch.softmax(logits / temperature, dim=-1)[:, label]
            return probabilities

        method = LayerIntegratedGradients(probability, self._eager.get_input_embeddings())
        for points in _NUM_POINTS:
            attributions, delta = method.attribute(
                torch.from_numpy(input_ids),
                torch.from_numpy(baseline_ids),
                n_steps=points,
                internal_batch_size=_POINTS_PER_BATCH,
                return_convergence_delta=True,
            )
            # captum's delta is the excess of the sum.
            gap = -float(delta.sum())
            if abs(gap) <= tolerance:
                break
        tokens: FloatArray = attributions.sum(dim=-1)[0].detach().numpy()
        return tokens, gap
