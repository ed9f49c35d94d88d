"""How a serving graph's answers agree with PyTorch's; what decides whether it ships."""

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
"""Validation rows that a graph is checked on at most."""

ALONE_ROWS = 64
"""Rows that run alone as well, and all of these in one batch."""

MOST_ACCURACY_LOSS = 0.3
"""In points of a hundred."""


class ReferencePredictions:
    """PyTorch's answers to the rows that graphs are checked on, and the temperature that calibrates them.

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
        logits = self._logits(graph)
        self.temperature = fit_temperature(logits[self._golden :], self._labels.tolist())
        self._probabilities = softmax(logits, self.temperature)
        # The golden ones are remembered as they come when each is by itself.
        self._probabilities[: self._golden] = self._alone(graph)[: self._golden]

    @property
    def golden(self) -> list[list[float]]:
        """Probabilities of the golden texts, each by itself, in label order."""
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
        """Check a quantized graph; `ships` tells what to make of it."""
        return self._compare(file, "onnxruntime-int8", INT8_TOLERANCE, own=True)

    def _compare(self, file: Path, runtime: str, tolerance: float, *, own: bool = False) -> GraphInfo:
        graph = OnnxGraph(file)
        answers, alone = softmax(self._logits(graph), self.temperature), self._alone(graph)
        together = softmax(graph.logits(*pad(self._ids[: len(alone)], self._pad_id)), self.temperature)
        rows, right = answers[self._golden :].argmax(axis=1), self._probabilities[self._golden :].argmax(axis=1)
        loss = float((right == self._labels).mean() - (rows == self._labels).mean()) if len(rows) else 0.0
        return GraphInfo(
            runtime=runtime,
            tolerance=tolerance,
            max_difference=max(_largest(answers, self._probabilities), _largest(alone, self._probabilities)),
            rows=len(rows),
            agreement=float((rows == right).mean()) if len(rows) else 1.0,
            accuracy_loss=100 * loss,
            batch_difference=max(_largest(alone, answers), _largest(alone, together)),
            golden=alone[: self._golden].tolist() if own else [],
        )

    def _logits(self, graph: RuntimeGraph) -> FloatArray:
        """Logits of all rows, run as they are served: `(rows, num_labels)`."""
        found: dict[int, FloatArray] = {}
        for batch in sub_batches([len(each) for each in self._ids]):
            logits = graph.logits(*pad([self._ids[row] for row in batch], self._pad_id))
            found.update(zip(batch, logits, strict=True))
        return np.stack([found[row] for row in range(len(self._ids))])

    def _alone(self, graph: RuntimeGraph) -> FloatArray:
        """Probabilities of the golden texts and the first rows, each by itself."""
        first = self._ids[: self._golden + ALONE_ROWS]
        logits = [graph.logits(*pad([sequence], self._pad_id)) for sequence in first]
        return softmax(np.concatenate(logits), self.temperature)


def passes_gate(graph: GraphInfo) -> bool:
    """Whether a quantized graph is good enough: about as accurate, and every text has one answer in any batch."""
    return graph.accuracy_loss <= MOST_ACCURACY_LOSS and graph.batch_difference <= FP32_TOLERANCE


def rejection_reason(graph: GraphInfo) -> str:
    """What is wrong with a quantized graph that does not ship."""
    if graph.accuracy_loss > MOST_ACCURACY_LOSS:
        lost, rows = graph.accuracy_loss, graph.rows
        return f"on {rows} validation rows it is {lost:.2f} points less accurate, more than {MOST_ACCURACY_LOSS}"
    return (
        f"it answers a text alone {graph.batch_difference:.2g} otherwise than among others, more than {FP32_TOLERANCE}"
    )


def _largest(some: FloatArray, others: FloatArray) -> float:
    """The largest difference in the rows that both have; not a number if there is one among them."""
    rows = min(len(some), len(others))
    return float(np.abs(some[:rows] - others[:rows]).max())
