"""From a trained model to the files of a bundle, every serving graph checked against PyTorch."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from newsbert.bundle import FP32_TOLERANCE, Graph
from newsbert.errors import ModelError
from newsbert.evaluation import FloatArray, softmax
from newsbert.runtimes import Graph as RuntimeGraph
from newsbert.runtimes.onnx import OnnxGraph
from newsbert.runtimes.pytorch import TorchGraph
from newsbert.runtimes.tokenization import SequenceTokenizer, pad

CHECKED_ROWS = 64


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


def write_weights(model: PreTrainedModel, directory: Path) -> None:
    """Write `config.json`, `model.safetensors`, and `model.pth` (tensors only, for TorchServe's deployment plugin)."""
    model.save_pretrained(str(directory))
    torch.save(model.state_dict(), directory / "model.pth")


def write_onnx(model: PreTrainedModel, file: Path) -> None:
    """Write the model as an ONNX graph with dynamic batch and sequence sizes and fp32 logits."""
    axes = {0: "batch", 1: "sequence"}
    exporter_log = logging.getLogger("torch.onnx")
    level = exporter_log.level
    exporter_log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own workings; the graph is checked below
            program = torch.onnx.export(
                LogitsOnly(model),
                example_inputs(model),
                dynamo=True,
                dynamic_shapes=(axes, axes),
                input_names=["input_ids", "attention_mask"],
                output_names=["logits"],
                verbose=False,
            )
            assert program is not None
            program.save(str(file), external_data=False)
    finally:
        exporter_log.setLevel(level)


def check_onnx(
    model: PreTrainedModel, file: Path, tokenizer: SequenceTokenizer, sequences: Sequence[str]
) -> tuple[Graph, FloatArray]:
    """Compare an ONNX graph with PyTorch, each sequence alone and all in one padded batch.

    Args:
        model: The trained model.
        file: Its graph.
        tokenizer: The bundle's.
        sequences: Prepared texts, the golden ones first.

    Returns:
        What the contract says of the graph, and PyTorch's probabilities `(len(sequences), num_labels)`.

    Raises:
        ModelError: If a probability differs by more than the tolerance.
    """
    reference, graph = TorchGraph(model), OnnxGraph(file)
    ids = tokenizer.encode(sequences)
    expected = _alone(reference, ids, tokenizer.pad_id)
    seen = (
        softmax(reference.logits(*pad(ids, tokenizer.pad_id))),
        _alone(graph, ids, tokenizer.pad_id),
        softmax(graph.logits(*pad(ids, tokenizer.pad_id))),
    )
    difference = max(float(np.abs(probabilities - expected).max()) for probabilities in seen)
    if not difference <= FP32_TOLERANCE:
        raise ModelError(
            f"the ONNX graph differs from PyTorch by {difference:.2g} in probability, more than {FP32_TOLERANCE}",
            "choose another base model, or report it with the base model's name",
        )
    return Graph("onnxruntime", FP32_TOLERANCE, difference), expected


def _alone(graph: RuntimeGraph, ids: Sequence[Sequence[int]], pad_id: int) -> FloatArray:
    """Probabilities of every sequence run by itself: `(len(ids), num_labels)`."""
    return np.concatenate([softmax(graph.logits(*pad([sequence], pad_id))) for sequence in ids])
