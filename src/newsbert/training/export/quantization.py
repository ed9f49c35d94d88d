"""Static 8-bit quantization of an ONNX graph: weights and activations of its large products, and its word embeddings.

Scales are fixed when the bundle is written, from the ranges of the activations on calibration rows. So a text's
prediction does not depend on the other texts of its batch, as it does with dynamic quantization. The graph has pairs of
`QuantizeLinear` and `DequantizeLinear`, which ONNX Runtime and OpenVINO turn into integer products.

Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html; https://arxiv.org/abs/1712.05877.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from newsbert.bundle import shared_weights
from newsbert.inference.tokenization import pad

CALIBRATION_ROWS = 256
_MIN_SIDE = 16
"""Minimum side of a quantized matrix: the narrower one of the labels gains nothing and costs accuracy."""

_MIN_ROWS = 1000
"""Minimum number of rows of an embedding table that is worth storing in 8 bits."""

_PRODUCTS = ["Gemm", "MatMul"]


class _CalibrationRows(CalibrationDataReader):  # type: ignore[misc]
    """Calibration rows, of which every one runs alone: the scales should not fit padding."""

    def __init__(self, rows: Sequence[Sequence[int]], pad_id: int) -> None:
        self._rows, self._pad_id = rows, pad_id
        self.set_range(0, len(rows))

    def __len__(self) -> int:
        return len(self._rows)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._batches = iter([pad([row], self._pad_id) for row in self._rows[start_index:end_index]])

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else dict(zip(("input_ids", "attention_mask"), batch, strict=True))


def write(
    source: Path,
    target: Path,
    rows: Sequence[Sequence[int]],
    pad_id: int,
    method: CalibrationMethod = CalibrationMethod.MinMax,
) -> None:
    """Write the graph `source` quantized to `target`.

    Args:
        source: An fp32 graph of `input_ids` and `attention_mask`.
        target: The file to write.
        rows: Token ids of calibration texts, such as training rows.
        pad_id: The id that pads a batch.
        method: How the ranges of the activations are determined.
    """
    model = shared_weights.load(source)
    add_pre_process_metadata(model)  # or it logs a warning; the exported graph has all shapes that it needs
    quantize_static(
        model,
        target,
        _CalibrationRows(rows[:CALIBRATION_ROWS], pad_id),
        op_types_to_quantize=_PRODUCTS,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=list(_list_small_products(model)),
        calibrate_method=method,
        extra_options={
            "WeightSymmetric": True,
            "MatMulConstBOnly": True,
            "CalibStridedMinMax": 1,  # one row after another: rows of different lengths have no common histogram
            "OpTypesToExcludeOutputQuantization": _PRODUCTS,  # their sums stay fp32
        },
    )
    quantized = onnx.load(target)
    _quantize_embeddings(quantized)
    onnx.checker.check_model(quantized)
    onnx.save(quantized, str(target))


def _list_small_products(model: ModelProto) -> Iterator[str]:
    """Yield the names of the products by a small constant, or by none."""
    dims = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in _PRODUCTS and min(dims.get(node.input[1], [0])) < _MIN_SIDE:
            yield node.name


def _quantize_embeddings(model: ModelProto) -> None:
    """Replace every lookup in a large table by one in a table of 8-bit rows, with a scale per row.

    ONNX Runtime's tool would take one scale for the whole table, which costs accuracy.
    """
    tables = {
        tensor.name: tensor
        for tensor in model.graph.initializer
        if len(tensor.dims) == 2 and tensor.dims[0] >= _MIN_ROWS
    }
    nodes: list[NodeProto] = []

    def add_initializer(name: str, value: NDArray[np.generic]) -> None:
        model.graph.initializer.append(numpy_helper.from_array(value, name))

    def add_node(kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))

    for node in model.graph.node:
        if node.op_type != "Gather" or node.input[0] not in tables:
            nodes.append(node)
            continue
        name, ids, output = node.input[0], node.input[1], node.output[0]
        table = numpy_helper.to_array(tables[name])
        scales = np.maximum(np.abs(table).max(axis=1, keepdims=True) / 127, np.finfo(np.float32).tiny)
        add_initializer(f"{name}_quantized", np.rint(table / scales).astype(np.int8))
        add_initializer(f"{name}_scales", scales.astype(np.float32))
        add_node("Gather", [f"{name}_quantized", ids], f"{output}_rows", axis=0)
        add_node("Cast", [f"{output}_rows"], f"{output}_float", to=TensorProto.FLOAT)
        add_node("Gather", [f"{name}_scales", ids], f"{output}_row_scales", axis=0)
        add_node("Mul", [f"{output}_float", f"{output}_row_scales"], output)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    retained = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(retained)
