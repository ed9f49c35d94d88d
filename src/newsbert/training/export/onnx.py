"""Export of a trained model to ONNX."""

import logging
import warnings
from pathlib import Path

import torch
from transformers import PreTrainedModel

from newsbert.inference.torch_module import LogitsOnly, example_inputs
from newsbert.training import bert_graph
from newsbert.training.bert_graph import BertGraph

_BERT_OPSET, _OPSET = 23, 20
"""ONNX opsets of BERT, the first with attention as one operation, and of all other architectures.

With 23, torch writes graphs of ModernBERT that ONNX Runtime refuses."""


def write_onnx(model: PreTrainedModel, file: Path) -> None:
    """Write the model as an ONNX graph with dynamic batch and sequence sizes and fp32 logits."""
    axes = {0: "batch", 1: "sequence"}
    is_bert = bert_graph.supports(model)
    exporter_log = logging.getLogger("torch.onnx")
    level = exporter_log.level
    exporter_log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about torch's internals; the graph is checked afterwards
            program = torch.onnx.export(
                BertGraph(model).eval() if is_bert else LogitsOnly(model),
                example_inputs(model),
                dynamo=True,
                dynamic_shapes=(axes, axes),
                input_names=["input_ids", "attention_mask"],
                output_names=["logits"],
                opset_version=_BERT_OPSET if is_bert else _OPSET,
                verbose=False,
            )
            assert program is not None
            program.save(str(file), external_data=False)
    finally:
        exporter_log.setLevel(level)
