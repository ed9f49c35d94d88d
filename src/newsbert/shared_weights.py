"""Weights that two files of a bundle share: the ONNX graph refers to those of PyTorch, and does not hold them again.

A safetensors file is a header and the tensors behind it, as plain bytes. That is what ONNX calls external data: a graph
names a file beside it, an offset and a length. ONNX Runtime and OpenVINO read no file outside the graph's directory.

Source: https://huggingface.co/docs/safetensors, https://onnx.ai/onnx/repo-docs/ExternalData.html
"""

import hashlib
import json
from pathlib import Path

import onnx
from onnx.external_data_helper import set_external_data

_MIN_BYTES = 1024
"""Smaller tensors stay in the graph: some of its rewriting rules look into them."""

_DTYPES = {"F32": onnx.TensorProto.FLOAT}
_LENGTH_BYTES = 8


def share(graph: Path, weights: Path) -> None:
    """Have a graph refer to the tensors of a safetensors file that it holds, too.

    Args:
        graph: An ONNX graph that holds all its tensors.
        weights: The file, in the same directory.
    """
    model = onnx.load(str(graph))
    places = _places(weights)
    for tensor in model.graph.initializer:
        place = places.get((tensor.data_type, tuple(tensor.dims), hashlib.sha256(tensor.raw_data).digest()))
        if place is not None and len(tensor.raw_data) >= _MIN_BYTES:
            set_external_data(tensor, weights.name, offset=place, length=len(tensor.raw_data))
            tensor.ClearField("raw_data")
    graph.write_bytes(model.SerializeToString(deterministic=True))


def _places(weights: Path) -> dict[tuple[int, tuple[int, ...], bytes], int]:
    """Return where tensors begin in a safetensors file, by type, shape and SHA-256."""
    places: dict[tuple[int, tuple[int, ...], bytes], int] = {}
    with weights.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        header = json.loads(stream.read(length))
        for name, tensor in header.items():
            if name != "__metadata__" and tensor["dtype"] in _DTYPES:
                first, last = (_LENGTH_BYTES + length + offset for offset in tensor["data_offsets"])
                stream.seek(first)
                digest = hashlib.sha256(stream.read(last - first)).digest()
                places[_DTYPES[tensor["dtype"]], tuple(tensor["shape"]), digest] = first
    return places
