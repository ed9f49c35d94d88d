"""Static 8-bit quantization of an ONNX graph: weights and activations of its large matrix products.

Scales are fixed when the bundle is written, from the range that each activation had on calibration rows. So a text's
answer does not depend on its neighbours in a batch, as it does with dynamic quantization. The graph holds
`QuantizeLinear` and `DequantizeLinear` pairs, which ONNX Runtime and OpenVINO turn into integer products.

Source: https://arxiv.org/abs/1712.05877; https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html;
for the correction of biases https://arxiv.org/abs/1906.04721.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from newsbert.bundle import shared_weights
from newsbert.core.types import FloatArray
from newsbert.inference.runtimes.onnxruntime import session
from newsbert.inference.tokenization import pad

CALIBRATION_ROWS = 256
_LEAST_SIDE = 16
"""Narrower matrices stay as they are: that of the labels, which gains nothing and costs accuracy."""

_LEAST_ROWS = 1000
"""Of a table of embeddings that is worth storing in 8 bits."""


def write(source: Path, target: Path, rows: Sequence[Sequence[int]], pad_id: int) -> None:
    """Write the graph `source` quantized to `target`.

    Args:
        source: An fp32 graph of `input_ids` and `attention_mask`.
        target: The file to write.
        rows: Token ids of calibration texts, such as training rows.
        pad_id: The id that pads a batch.
    """
    model = shared_weights.load(source)
    graph = _Quantized(model)
    graph.quantize(_activations(source, graph.inputs(), rows[:CALIBRATION_ROWS], pad_id))
    onnx.checker.check_model(model)
    onnx.save(model, str(target))


def _activations(
    source: Path, names: Sequence[str], rows: Sequence[Sequence[int]], pad_id: int
) -> dict[str, FloatArray]:
    """What the inputs of the products are on every row, by name: `(tokens, features)`.

    Each row runs by itself: padding is nothing that scales should fit.
    """
    model = shared_weights.load(source)
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    running = session(model.SerializeToString())
    seen: dict[str, list[FloatArray]] = {name: [] for name in names}
    for row in rows:
        input_ids, attention_mask = pad([row], pad_id)
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        for name, values in zip(names, running.run(list(names), inputs), strict=True):
            seen[name].append(values.reshape(-1, values.shape[-1]))
    return {name: np.concatenate(values) for name, values in seen.items()}


class _Quantized:
    """A graph that is being rewritten."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._constants = {each.name: each for each in model.graph.initializer}
        self._scales: dict[str, tuple[np.float32, int]] = {}
        self._nodes: list[NodeProto] = []

    def inputs(self) -> list[str]:
        """Names of the activations that are multiplied by weights."""
        return sorted({node.input[0] for node in self._graph.node if self._is_product(node)})

    def quantize(self, activations: dict[str, FloatArray]) -> None:
        """Rewrite every product, and every lookup in a large table."""
        for node in self._graph.node:
            if self._is_product(node):
                self._product(node, activations[node.input[0]])
            if self._is_lookup(node):
                self._lookup(node)
            else:
                self._nodes.append(node)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        used = {name for node in self._nodes for name in node.input}
        kept = [each for each in self._graph.initializer if each.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)

    def _is_product(self, node: NodeProto) -> bool:
        return (
            node.op_type in {"Gemm", "MatMul"}
            and node.input[1] in self._constants
            and min(self._constants[node.input[1]].dims) >= _LEAST_SIDE
        )

    def _is_lookup(self, node: NodeProto) -> bool:
        table = self._constants.get(node.input[0]) if node.op_type == "Gather" else None
        return table is not None and len(table.dims) == 2 and table.dims[0] >= _LEAST_ROWS

    def _product(self, node: NodeProto, activation: FloatArray) -> None:
        name, weights_name = node.input[0], node.input[1]
        if name not in self._scales:
            self._scales[name] = scale, zero = _range(activation)
            self._add(f"{name}_scale", np.asarray(scale))
            self._add(f"{name}_zero", np.asarray(zero, np.uint8))
            parameters = [f"{name}_scale", f"{name}_zero"]
            self._node("QuantizeLinear", [name, *parameters], f"{name}_quantized")
            self._node("DequantizeLinear", [f"{name}_quantized", *parameters], f"{name}_dequantized")
        scale, zero = self._scales[name]
        rounded = _rounded(activation, scale, zero)
        weights = numpy_helper.to_array(self._constants[weights_name])
        transposed = any(each.name == "transB" and each.i for each in node.attribute)
        axis = 0 if transposed else 1  # that of the outputs: each has a scale of its own
        scales = np.maximum(np.abs(weights).max(axis=1 - axis) / 127, np.finfo(np.float32).tiny).astype(np.float32)
        spread = np.expand_dims(scales, 1 - axis)
        quantized = np.rint(weights / spread).astype(np.int8)
        output = node.output[0]
        self._add(f"{output}_weights", quantized)
        self._add(f"{output}_scales", scales)
        # Without a zero point, if only of zeros, ONNX Runtime does not see an integer product.
        self._add(f"{output}_zeros", np.zeros(len(scales), np.int8))
        inputs = [f"{output}_weights", f"{output}_scales", f"{output}_zeros"]
        self._node("DequantizeLinear", inputs, f"{output}_dequantized", axis=axis)
        node.input[0], node.input[1] = f"{name}_dequantized", f"{output}_dequantized"
        if node.op_type == "Gemm" and len(node.input) == 3 and node.input[2] in self._constants:
            restored = quantized.astype(np.float32) * spread
            exact, approximate = (each.T if transposed else each for each in (weights, restored))
            # What rounding shifts on average is put back.
            shift = activation.mean(axis=0) @ exact - rounded.mean(axis=0) @ approximate
            bias = numpy_helper.to_array(self._constants[node.input[2]]) + shift
            bias_scales = (scales * scale).astype(np.float32)
            self._add(f"{output}_bias", np.rint(bias / bias_scales).astype(np.int32))
            self._add(f"{output}_bias_scales", bias_scales)
            inputs = [f"{output}_bias", f"{output}_bias_scales"]
            self._node("DequantizeLinear", inputs, f"{output}_bias_dequantized", axis=0)
            node.input[2] = f"{output}_bias_dequantized"

    def _lookup(self, node: NodeProto) -> None:
        """A table of 8-bit rows, each with its scale."""
        name, ids, output = node.input[0], node.input[1], node.output[0]
        table = numpy_helper.to_array(self._constants[name])
        scales = np.maximum(np.abs(table).max(axis=1, keepdims=True) / 127, np.finfo(np.float32).tiny)
        self._add(f"{name}_quantized", np.rint(table / scales).astype(np.int8))
        self._add(f"{name}_scales", scales.astype(np.float32))
        self._node("Gather", [f"{name}_quantized", ids], f"{output}_rows", axis=0)
        self._node("Cast", [f"{output}_rows"], f"{output}_float", to=TensorProto.FLOAT)
        self._node("Gather", [f"{name}_scales", ids], f"{output}_row_scales", axis=0)
        self._node("Mul", [f"{output}_float", f"{output}_row_scales"], output)

    def _add(self, name: str, value: NDArray[np.generic]) -> None:
        self._graph.initializer.append(numpy_helper.from_array(value, name))

    def _node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        self._nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))


def _range(activation: FloatArray) -> tuple[np.float32, int]:
    """Scale and zero point that hold all that was seen, and 0 itself, in unsigned 8 bits."""
    low, high = min(float(activation.min()), 0.0), max(float(activation.max()), 0.0)
    scale = max(high - low, 1e-6) / 255
    return np.float32(scale), int(np.clip(round(-low / scale), 0, 255))


def _rounded(activation: FloatArray, scale: np.float32, zero: int) -> FloatArray:
    """What is left of an activation."""
    steps = np.clip(np.rint(activation / scale) + zero, 0, 255) - zero
    return np.asarray(steps * scale, dtype=np.float32)
