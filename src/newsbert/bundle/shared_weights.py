"""Weights that two files of a bundle share: the ONNX graph refers to those of PyTorch, and does not hold them again.

A safetensors file is a header and the tensors behind it, as plain bytes. That is what ONNX calls external data: a graph
names a file beside it, an offset and a length. ONNX Runtime and OpenVINO read no file outside the graph's directory.
A matrix that `BertGraph` has joined of others, the query's with its scale in it, is joined when a graph is loaded.

Source: https://huggingface.co/docs/safetensors, https://onnx.ai/onnx/repo-docs/ExternalData.html
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from newsbert.core.types import FloatArray

_MIN_BYTES = 1024
"""Smaller tensors stay in the graph: some of its rewriting rules look into them."""

_LENGTH_BYTES = 8
_PREFIX = "shared/"
"""Begins the names of what is not in the graph as it was exported."""


def externalize(graph: Path, weights: Path, query_scale: float = 1.0) -> None:
    """Replace tensors of a graph by references to the same ones in a safetensors file.

    Args:
        graph: An ONNX graph that holds all its tensors.
        weights: The file, in the same directory.
        query_scale: What the graph's matrices of queries are multiplied by, other than the file's.
    """
    model = onnx.load(str(graph))
    references = _References(weights, query_scale)
    initializers, nodes = [], []
    for tensor in model.graph.initializer:
        blocks = references.blocks(numpy_helper.to_array(tensor)) if len(tensor.raw_data) >= _MIN_BYTES else []
        if not blocks:
            initializers.append(tensor)
        elif [scale for _, scale in blocks] == [1.0]:
            initializers.append(references.tensor(blocks[0][0], tensor.name))
        else:
            nodes += references.joined(blocks, tensor.name)
    del model.graph.initializer[:]
    model.graph.initializer.extend([*initializers, *references.tensors.values()])
    nodes += model.graph.node
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    graph.write_bytes(model.SerializeToString(deterministic=True))


def load(graph: Path) -> onnx.ModelProto:
    """Return a graph that holds all its tensors, as it was exported."""
    model = onnx.load(str(graph))
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if not node.name.startswith(_PREFIX):
            nodes.append(node)
            continue
        arrays = [numpy_helper.to_array(constants[name]) for name in node.input]
        joined = np.concatenate(arrays) if node.op_type == "Concat" else arrays[0] * arrays[1]
        constants[node.output[0]] = numpy_helper.from_array(joined, node.output[0])
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(tensor for name, tensor in constants.items() if not name.startswith(_PREFIX))
    return model


class _References:
    """Finds arrays in a safetensors file, as they are or scaled.

    Attributes:
        tensors: What the joined matrices of a graph are made of, by name.
    """

    def __init__(self, weights: Path, query_scale: float) -> None:
        self._file = weights.name
        self._places: dict[tuple[tuple[int, ...], bytes], tuple[int, float]] = {}
        self._arrays: dict[int, tuple[int, ...]] = {}
        self.tensors: dict[str, TensorProto] = {}
        with weights.open("rb") as stream:
            length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
            header = json.loads(stream.read(length))
            for name, tensor in header.items():
                if name == "__metadata__" or tensor["dtype"] != "F32":
                    continue
                first, last = (_LENGTH_BYTES + length + offset for offset in tensor["data_offsets"])
                stream.seek(first)
                shape = tuple(tensor["shape"])
                array = np.frombuffer(stream.read(last - first), "<f4").reshape(shape)
                self._arrays[first] = shape
                self._places[shape, _digest(array)] = first, 1.0
                if "query" in name and query_scale != 1.0:
                    self._places[shape, _digest(array * np.float32(query_scale))] = first, query_scale

    def blocks(self, array: FloatArray) -> list[tuple[int, float]]:
        """Return the place of an array, or those of the square matrices in it, one above another; nothing if unknown.

        A place is where a tensor begins in the file, and what it is multiplied by.
        """
        whole = self._places.get((array.shape, _digest(array)))
        if whole is not None:
            return [whole]
        if array.ndim != 2 or array.shape[0] % array.shape[1]:
            return []
        size = array.shape[1]
        places = [self._places.get(((size, size), _digest(block))) for block in array.reshape(-1, size, size)]
        return [place for place in places if place is not None] if None not in places else []

    def tensor(self, first: int, name: str) -> TensorProto:
        """Return a tensor of the file."""
        shape = self._arrays[first]
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, raw_data=b"")
        set_external_data(tensor, self._file, offset=first, length=4 * int(np.prod(shape)))
        tensor.ClearField("raw_data")
        return tensor

    def joined(self, blocks: Sequence[tuple[int, float]], name: str) -> list[NodeProto]:
        """Return what computes an array of its blocks."""
        nodes, parts = [], []
        for first, scale in blocks:
            part = f"{_PREFIX}{first}"
            self.tensors[part] = self.tensor(first, part)
            if scale != 1.0:
                factor = f"{_PREFIX}scale"
                self.tensors[factor] = numpy_helper.from_array(np.array(scale, np.float32), factor)
                scaled = f"{_PREFIX}{name}.scaled" if len(blocks) > 1 else name
                nodes.append(helper.make_node("Mul", [part, factor], [scaled], name=f"{_PREFIX}{name}.scaled"))
                part = scaled
            parts.append(part)
        if len(blocks) > 1:
            nodes.append(helper.make_node("Concat", parts, [name], name=f"{_PREFIX}{name}", axis=0))
        return nodes


def _digest(array: FloatArray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(array, "<f4").tobytes()).digest()
