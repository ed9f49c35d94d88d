"""Shared weights of a bundle: the ONNX graph refers to the weights of PyTorch and holds no copy of them.

A safetensors file is a header followed by the tensors as plain bytes. ONNX calls this external data: a graph names a
file beside it, an offset and a length. ONNX Runtime and OpenVINO read no file outside the graph's directory.
`BertGraph` concatenates matrices, the query's with its scale applied. Such a matrix is computed when a graph is loaded.

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
"""Minimum size of a shared tensor. Smaller tensors stay in the graph, as some of its rewriting rules inspect them."""

_LENGTH_BYTES = 8
_PREFIX = "shared/"
"""Prefix of the names of nodes and tensors that are not in the exported graph."""


def externalize(graph: Path, weights: Path, query_scale: float = 1.0) -> None:
    """Replace tensors of a graph by references to the same tensors in a safetensors file.

    Args:
        graph: ONNX graph that holds all its tensors.
        weights: The safetensors file, in the same directory.
        query_scale: Scale of the query matrices in the graph relative to those in the file.
    """
    model = onnx.load(str(graph))
    index = _WeightIndex(weights, query_scale)
    initializers, nodes = [], []
    for tensor in model.graph.initializer:
        blocks = index.blocks(numpy_helper.to_array(tensor)) if len(tensor.raw_data) >= _MIN_BYTES else []
        if not blocks:
            initializers.append(tensor)
        elif [scale for _, scale in blocks] == [1.0]:
            initializers.append(index.tensor(blocks[0][0], tensor.name))
        else:
            nodes += index.joined(blocks, tensor.name)
    del model.graph.initializer[:]
    model.graph.initializer.extend([*initializers, *index.tensors.values()])
    nodes += model.graph.node
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    graph.write_bytes(model.SerializeToString(deterministic=True))


def load(graph: Path) -> onnx.ModelProto:
    """Load a graph with all its tensors, as it was exported."""
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


class _WeightIndex:
    """An index of the arrays in a safetensors file, plain and scaled.

    Attributes:
        tensors: Parts of the joined matrices of a graph, by name.
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
                start, end = (_LENGTH_BYTES + length + offset for offset in tensor["data_offsets"])
                stream.seek(start)
                shape = tuple(tensor["shape"])
                array = np.frombuffer(stream.read(end - start), "<f4").reshape(shape)
                self._arrays[start] = shape
                self._places[shape, _hash_array(array)] = start, 1.0
                if "query" in name and query_scale != 1.0:
                    self._places[shape, _hash_array(array * np.float32(query_scale))] = start, query_scale

    def blocks(self, array: FloatArray) -> list[tuple[int, float]]:
        """Return the location of an array, or those of the square matrices stacked in it; empty if one is unknown.

        A location is the offset of a tensor in the file and the factor that it is multiplied by.
        """
        whole = self._places.get((array.shape, _hash_array(array)))
        if whole is not None:
            return [whole]
        if array.ndim != 2 or array.shape[0] % array.shape[1]:
            return []
        size = array.shape[1]
        places = [self._places.get(((size, size), _hash_array(block))) for block in array.reshape(-1, size, size)]
        return [place for place in places if place is not None] if None not in places else []

    def tensor(self, first: int, name: str) -> TensorProto:
        """Return an ONNX tensor that refers to the file."""
        shape = self._arrays[first]
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, raw_data=b"")
        set_external_data(tensor, self._file, offset=first, length=4 * int(np.prod(shape)))
        tensor.ClearField("raw_data")
        return tensor

    def joined(self, blocks: Sequence[tuple[int, float]], name: str) -> list[NodeProto]:
        """Return the nodes that compute an array from its blocks."""
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


def _hash_array(array: FloatArray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(array, "<f4").tobytes()).digest()
