"""Static 8-bit quantization of an ONNX graph: weights and activations of its large matrix products.

Scales are fixed when the bundle is written, from the ranges of the activations on calibration rows. So a text's
prediction does not depend on the other texts of its batch, as it does with dynamic quantization. The graph has pairs of
`QuantizeLinear` and `DequantizeLinear`, which ONNX Runtime and OpenVINO turn into integer products.

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
_MIN_SIDE = 16
"""Minimum side of a quantized matrix: the narrower one of the labels gains nothing and costs accuracy."""

_MIN_ROWS = 1000
"""Minimum number of rows of an embedding table that is worth storing in 8 bits."""


def write(source: Path, target: Path, rows: Sequence[Sequence[int]], pad_id: int) -> None:
    """Write the graph `source` quantized to `target`.

    Args:
        source: An fp32 graph of `input_ids` and `attention_mask`.
        target: The file to write.
        rows: Token ids of calibration texts, such as training rows.
        pad_id: The id that pads a batch.
    """
    model = shared_weights.load(source)
    graph = _Quantizer(model)
    graph.quantize(_collect_activations(source, graph.inputs(), rows[:CALIBRATION_ROWS], pad_id))
    onnx.checker.check_model(model)
    onnx.save(model, str(target))


def _collect_activations(
    source: Path, names: Sequence[str], rows: Sequence[Sequence[int]], pad_id: int
) -> dict[str, FloatArray]:
    """Return the inputs of the products on all rows, by name: `(tokens, features)`.

    Every row runs alone: the scales should not fit padding.
    """
    model = shared_weights.load(source)
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    ort_session = session(model.SerializeToString())
    recorded: dict[str, list[FloatArray]] = {name: [] for name in names}
    for row in rows:
        input_ids, attention_mask = pad([row], pad_id)
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        for name, values in zip(names, ort_session.run(list(names), inputs), strict=True):
            recorded[name].append(values.reshape(-1, values.shape[-1]))
    return {name: np.concatenate(values) for name, values in recorded.items()}


class _Quantizer:
    """Quantizer of a graph, which it rewrites in place."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._scales: dict[str, tuple[np.float32, int]] = {}
        self._nodes: list[NodeProto] = []

    def inputs(self) -> list[str]:
        """Names of the activations that are multiplied by weights."""
        return sorted({node.input[0] for node in self._graph.node if self._is_product(node)})

    def quantize(self, activations: dict[str, FloatArray]) -> None:
        """Rewrite every product, and every lookup in a large table."""
        for node in self._graph.node:
            if self._is_product(node):
                self._quantize_product(node, activations[node.input[0]])
            if self._is_lookup(node):
                self._quantize_lookup(node)
            else:
                self._nodes.append(node)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        used = {name for node in self._nodes for name in node.input}
        retained = [tensor for tensor in self._graph.initializer if tensor.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(retained)

    def _is_product(self, node: NodeProto) -> bool:
        return (
            node.op_type in {"Gemm", "MatMul"}
            and node.input[1] in self._constants
            and min(self._constants[node.input[1]].dims) >= _MIN_SIDE
        )

    def _is_lookup(self, node: NodeProto) -> bool:
        table = self._constants.get(node.input[0]) if node.op_type == "Gather" else None
        return table is not None and len(table.dims) == 2 and table.dims[0] >= _MIN_ROWS

    def _quantize_product(self, node: NodeProto, activation: FloatArray) -> None:
        name, weights_name = node.input[0], node.input[1]
        if name not in self._scales:
            self._scales[name] = scale, zero = _compute_range(activation)
            self._add_initializer(f"{name}_scale", np.asarray(scale))
            self._add_initializer(f"{name}_zero", np.asarray(zero, np.uint8))
            parameters = [f"{name}_scale", f"{name}_zero"]
            self._add_node("QuantizeLinear", [name, *parameters], f"{name}_quantized")
            self._add_node("DequantizeLinear", [f"{name}_quantized", *parameters], f"{name}_dequantized")
        scale, zero = self._scales[name]
        rounded = _fake_quantize(activation, scale, zero)
        weights = numpy_helper.to_array(self._constants[weights_name])
        transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        axis = 0 if transposed else 1  # axis of the outputs, with one scale per output
        scales = np.maximum(np.abs(weights).max(axis=1 - axis) / 127, np.finfo(np.float32).tiny).astype(np.float32)
        broadcast_scales = np.expand_dims(scales, 1 - axis)
        quantized = np.rint(weights / broadcast_scales).astype(np.int8)
        output = node.output[0]
        self._add_initializer(f"{output}_weights", quantized)
        self._add_initializer(f"{output}_scales", scales)
        # Without a zero point, even one of zeros, ONNX Runtime does not recognize an integer product.
        self._add_initializer(f"{output}_zeros", np.zeros(len(scales), np.int8))
        inputs = [f"{output}_weights", f"{output}_scales", f"{output}_zeros"]
        self._add_node("DequantizeLinear", inputs, f"{output}_dequantized", axis=axis)
        node.input[0], node.input[1] = f"{name}_dequantized", f"{output}_dequantized"
        if node.op_type == "Gemm" and len(node.input) == 3 and node.input[2] in self._constants:
            restored = quantized.astype(np.float32) * broadcast_scales
            exact, approximate = (matrix.T if transposed else matrix for matrix in (weights, restored))
            # The bias corrects the average shift by rounding.
            shift = activation.mean(axis=0) @ exact - rounded.mean(axis=0) @ approximate
            bias = numpy_helper.to_array(self._constants[node.input[2]]) + shift
            bias_scales = (scales * scale).astype(np.float32)
            self._add_initializer(f"{output}_bias", np.rint(bias / bias_scales).astype(np.int32))
            self._add_initializer(f"{output}_bias_scales", bias_scales)
            inputs = [f"{output}_bias", f"{output}_bias_scales"]
            self._add_node("DequantizeLinear", inputs, f"{output}_bias_dequantized", axis=0)
            node.input[2] = f"{output}_bias_dequantized"

    def _quantize_lookup(self, node: NodeProto) -> None:
        """Replace the lookup by one in a table of 8-bit rows, with a scale per row."""
        name, ids, output = node.input[0], node.input[1], node.output[0]
        table = numpy_helper.to_array(self._constants[name])
        scales = np.maximum(np.abs(table).max(axis=1, keepdims=True) / 127, np.finfo(np.float32).tiny)
        self._add_initializer(f"{name}_quantized", np.rint(table / scales).astype(np.int8))
        self._add_initializer(f"{name}_scales", scales.astype(np.float32))
        self._add_node("Gather", [f"{name}_quantized", ids], f"{output}_rows", axis=0)
        self._add_node("Cast", [f"{output}_rows"], f"{output}_float", to=TensorProto.FLOAT)
        self._add_node("Gather", [f"{name}_scales", ids], f"{output}_row_scales", axis=0)
        self._add_node("Mul", [f"{output}_float", f"{output}_row_scales"], output)

    def _add_initializer(self, name: str, value: NDArray[np.generic]) -> None:
        self._graph.initializer.append(numpy_helper.from_array(value, name))

    def _add_node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        self._nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))


def _compute_range(activation: FloatArray) -> tuple[np.float32, int]:
    """Return scale and zero point of unsigned 8 bits that cover all values, and 0."""
    low, high = min(float(activation.min()), 0.0), max(float(activation.max()), 0.0)
    scale = max(high - low, 1e-6) / 255
    return np.float32(scale), int(np.clip(round(-low / scale), 0, 255))


def _fake_quantize(activation: FloatArray, scale: np.float32, zero: int) -> FloatArray:
    """Return an activation after quantization and dequantization."""
    steps = np.clip(np.rint(activation / scale) + zero, 0, 255) - zero
    return np.asarray(steps * scale, dtype=np.float32)
