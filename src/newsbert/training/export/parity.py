"""Parity of a serving graph with PyTorch, which decides whether the graph ships."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from newsbert.bundle.bundle import FP32_TOLERANCE, INT8_TOLERANCE
from newsbert.bundle.contract import GraphInfo
from newsbert.core.types import FloatArray
from newsbert.errors import ModelError
from newsbert.evaluation.calibration import fit_temperature, softmax
from newsbert.inference.runtime import InferenceSession as RuntimeGraph
from newsbert.inference.runtime import sub_batches
from newsbert.inference.runtimes.onnxruntime import OnnxGraph
from newsbert.inference.runtimes.pytorch import TorchGraph
from newsbert.inference.tokenization import SequenceTokenizer, pad

CHECKED_ROWS = 2000
"""Maximum number of validation rows to check a graph on."""

ALONE_ROWS = 64
"""Number of rows that also run alone, and all together in one batch."""

MAX_ACCURACY_LOSS = 0.3
"""Maximum loss of accuracy in percentage points, or one row where that is more: one row is no evidence."""


class ReferencePredictions:
    """PyTorch's predictions for the rows to check graphs on, and the temperature that calibrates them.

    Args:
        model: The trained model.
        tokenizer: The bundle's.
        golden: The golden texts, prepared.
        texts: Validation rows, prepared, `CHECKED_ROWS` at most.
        labels: Their label ids.

    Attributes:
        temperature: Fitted on the validation rows.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: SequenceTokenizer,
        golden: Sequence[str],
        texts: Sequence[str],
        labels: Sequence[int],
    ) -> None:
        self._golden, self._labels = len(golden), np.asarray(labels)
        self._ids = tokenizer.encode([*golden, *texts])
        self._pad_id = tokenizer.pad_id
        graph = TorchGraph(model)
        logits = self._compute_logits(graph)
        self.temperature = fit_temperature(logits[self._golden :], self._labels.tolist())
        self._probabilities = softmax(logits, self.temperature)
        # The golden texts are stored with their probabilities in a batch of one.
        self._probabilities[: self._golden] = self._predict_alone(graph)[: self._golden]

    @property
    def golden(self) -> list[list[float]]:
        """Probabilities of the golden texts, computed one by one, in label order."""
        golden: list[list[float]] = self._probabilities[: self._golden].tolist()
        return golden

    @property
    def validation(self) -> tuple[FloatArray, list[int]]:
        """Calibrated probabilities `(rows, num_labels)` of the validation rows, and their label ids."""
        return self._probabilities[self._golden :], self._labels.tolist()

    def fp32(self, file: Path) -> GraphInfo:
        """Check an fp32 graph.

        Raises:
            ModelError: If a probability differs by more than the tolerance.
        """
        graph = self._compare(file, "onnxruntime", FP32_TOLERANCE)
        if not max(graph.max_difference, graph.batch_difference) <= FP32_TOLERANCE:
            raise ModelError(
                f"the ONNX graph differs from PyTorch by {graph.max_difference:.2g} in probability, "
                f"more than {FP32_TOLERANCE}",
                "choose another base model, or report it with the base model's name",
            )
        return graph

    def int8(self, file: Path) -> GraphInfo:
        """Check a quantized graph; `passes_gate` decides whether it ships."""
        return self._compare(file, "onnxruntime-int8", INT8_TOLERANCE, own=True)

    def _compare(self, file: Path, runtime: str, tolerance: float, *, own: bool = False) -> GraphInfo:
        graph = OnnxGraph(file)
        probabilities, alone = softmax(self._compute_logits(graph), self.temperature), self._predict_alone(graph)
        together = softmax(graph.logits(*pad(self._ids[: len(alone)], self._pad_id)), self.temperature)
        predicted, expected = (
            probabilities[self._golden :].argmax(axis=1),
            self._probabilities[self._golden :].argmax(axis=1),
        )
        loss = float((expected == self._labels).mean() - (predicted == self._labels).mean()) if len(predicted) else 0.0
        return GraphInfo(
            runtime=runtime,
            tolerance=tolerance,
            max_difference=max(
                _max_difference(probabilities, self._probabilities), _max_difference(alone, self._probabilities)
            ),
            rows=len(predicted),
            agreement=float((predicted == expected).mean()) if len(predicted) else 1.0,
            accuracy_loss=100 * loss,
            batch_difference=max(_max_difference(alone, probabilities), _max_difference(alone, together)),
            golden=alone[: self._golden].tolist() if own else [],
        )

    def _compute_logits(self, graph: RuntimeGraph) -> FloatArray:
        """Return the logits of all rows, batched as in serving: `(rows, num_labels)`."""
        logits_by_row: dict[int, FloatArray] = {}
        for batch in sub_batches([len(sequence) for sequence in self._ids]):
            logits = graph.logits(*pad([self._ids[row] for row in batch], self._pad_id))
            logits_by_row.update(zip(batch, logits, strict=True))
        return np.stack([logits_by_row[row] for row in range(len(self._ids))])

    def _predict_alone(self, graph: RuntimeGraph) -> FloatArray:
        """Return the probabilities of the golden texts and the first rows, computed one by one."""
        first = self._ids[: self._golden + ALONE_ROWS]
        logits = [graph.logits(*pad([sequence], self._pad_id)) for sequence in first]
        return softmax(np.concatenate(logits), self.temperature)


def passes_gate(graph: GraphInfo) -> bool:
    """Return whether a quantized graph is about as accurate, and answers a text the same in any batch."""
    return not _is_less_accurate(graph) and graph.batch_difference <= FP32_TOLERANCE


def rejection_reason(graph: GraphInfo) -> str:
    """Return the reason why a quantized graph does not ship."""
    if _is_less_accurate(graph):
        loss, rows = graph.accuracy_loss, graph.rows
        return f"on {rows} validation rows it is {loss:.2f} points less accurate, more than {MAX_ACCURACY_LOSS}"
    return (
        f"it answers a text alone {graph.batch_difference:.2g} otherwise than among others, more than {FP32_TOLERANCE}"
    )


def _is_less_accurate(graph: GraphInfo) -> bool:
    num_lost = round(graph.accuracy_loss / 100 * graph.rows)
    return num_lost > max(1, MAX_ACCURACY_LOSS / 100 * graph.rows)


def _max_difference(some: FloatArray, others: FloatArray) -> float:
    """Return the largest difference in the rows that both have; NaN if one of the values is NaN."""
    rows = min(len(some), len(others))
    return float(np.abs(some[:rows] - others[:rows]).max())
