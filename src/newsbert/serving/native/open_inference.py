"""The Open Inference Protocol, version 2: requests and responses over REST.

Inputs are `text` and, optionally, `title`, both BYTES of one shape. Outputs are `label`, `score`, `review` and
`probabilities`, whose last axis has the labels in the order of the model's metadata. Tensors are JSON, or binary data
behind the JSON as Triton's extension has it.

Source: https://github.com/kserve/open-inference-protocol;
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_binary_data.html.
"""

import json
import math
import re
import struct
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newsbert.core.version import __version__
from newsbert.data.text import NewsItem
from newsbert.inference.prediction import Prediction
from newsbert.serving.protocol import SERVED_NAME
from newsbert.serving.requests import RequestError, decode_text

PLATFORM = "newsbert"
HEADER_LENGTH = "inference-header-content-length"
"""The header with the length of the JSON before binary tensors."""

OUTPUTS = {"label": "BYTES", "score": "FP32", "review": "BOOL", "probabilities": "FP32"}
_TYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "BOOL": np.dtype("?")}

_LENGTH = re.compile("[0-9]{1,9}")

Value = NDArray[Any] | list[bytes]


@dataclass(frozen=True)
class InferRequest:
    """A request for inference.

    Attributes:
        id: The client's name of the request; it is in the response.
        items: The texts, in the order of the tensors' elements.
        shape: Shape of the inputs.
        outputs: For every requested output, in order, whether it is binary.
    """

    id: str
    items: list[NewsItem]
    shape: tuple[int, ...]
    outputs: dict[str, bool] = field(default_factory=dict)


def describe_server() -> dict[str, Any]:
    """Return the server's metadata."""
    return {"name": "newsbert", "version": __version__, "extensions": ["binary_tensor_data"]}


def describe_model(labels: Sequence[str], version: str) -> dict[str, Any]:
    """Return the model's metadata: its inputs and outputs, and the labels in the order of the probabilities."""
    shapes = {"probabilities": [-1, len(labels)]}
    return {
        "name": SERVED_NAME,
        "versions": [version] if version else [],
        "platform": PLATFORM,
        "inputs": [
            {"name": "text", "datatype": "BYTES", "shape": [-1]},
            {"name": "title", "datatype": "BYTES", "shape": [-1], "parameters": {"optional": True}},
        ],
        "outputs": [
            {
                "name": name,
                "datatype": datatype,
                "shape": shapes.get(name, [-1]),
                **({"parameters": {"labels": list(labels)}} if name == "probabilities" else {}),
            }
            for name, datatype in OUTPUTS.items()
        ],
    }


def parse_request(body: bytes, header_length: str | None) -> InferRequest:
    """Parse the body of a request for inference.

    Args:
        body: The body: JSON, and binary tensors behind it.
        header_length: Length of the JSON in bytes, from the header `Inference-Header-Content-Length`; all if `None`.

    Raises:
        RequestError: If the body is no valid request.
    """
    if header_length is not None and not (_LENGTH.fullmatch(header_length) and int(header_length) <= len(body)):
        raise RequestError(f"Inference-Header-Content-Length is {header_length!r}, and the body has {len(body)} bytes")
    length = len(body) if header_length is None else int(header_length)
    try:
        document = json.loads(decode_text(body[:length]))
    except RecursionError as error:
        raise RequestError("the JSON is nested too deep") from error
    except ValueError as error:
        raise RequestError(f"the body is not valid JSON: {error}") from error
    document = _check(document, dict, "the body")
    parameters = _check(document.get("parameters", {}), dict, "'parameters'")
    tensors: dict[str, tuple[tuple[int, ...], list[bytes | str]]] = {}
    binary = memoryview(body)[length:]
    for entry in _check(document.get("inputs"), list, "'inputs'"):
        tensor = _check(entry, dict, "an input")
        name, shape = _check(tensor.get("name"), str, "an input's 'name'"), parse_shape(tensor.get("shape"))
        check_input(name, tensor.get("datatype"), tensors)
        size = _check(tensor.get("parameters", {}), dict, "an input's 'parameters'").get("binary_data_size")
        if size is None:
            tensors[name] = shape, list(flatten(tensor.get("data")))
        else:
            if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(binary):
                raise RequestError(f"the input {name!r} has {size!r} bytes, and the body has {len(binary)} for it")
            tensors[name] = shape, list(parse_bytes(binary[:size]))
            binary = binary[size:]
    if len(binary):
        raise RequestError(f"the body has {len(binary)} bytes that belong to no input")
    return InferRequest(
        _check(document.get("id", ""), str, "'id'"),
        make_items(tensors),
        tensors["text"][0],
        _parse_outputs(document.get("outputs"), binary_by_default=parameters.get("binary_data_output") is True),
    )


def check_input(name: str, datatype: Any, others: Container[str]) -> None:
    """Check that an input is expected.

    Raises:
        RequestError: If it is not, or not once, or is not BYTES.
    """
    if name in others or name not in {"text", "title"}:
        raise RequestError(f"the input {name!r} is not expected; send 'text' and, optionally, 'title', once")
    if datatype != "BYTES":
        raise RequestError(f"the input {name!r} has the datatype {datatype!r}; send BYTES")


def make_items(tensors: Mapping[str, tuple[tuple[int, ...], Sequence[bytes | str]]]) -> list[NewsItem]:
    """Return the texts of the input tensors.

    Args:
        tensors: Shape and elements of every tensor, by name.

    Raises:
        RequestError: If `text` is missing, or a shape is wrong.
    """
    if "text" not in tensors:
        raise RequestError("the input 'text' is missing")
    shape, texts = tensors["text"]
    for name, (other_shape, elements) in tensors.items():
        if other_shape != shape:
            raise RequestError(f"the inputs have the shapes {list(shape)} and {list(other_shape)}; send one shape")
        if len(elements) != math.prod(shape):
            raise RequestError(f"the input {name!r} has {len(elements)} elements, and the shape {list(shape)}")
    if "title" not in tensors:
        return [decode_text(text) for text in texts]
    _, titles = tensors["title"]
    return [{"title": decode_text(title), "text": decode_text(text)} for title, text in zip(titles, texts, strict=True)]


def make_outputs(predictions: Sequence[Prediction], labels: Sequence[str], probabilities: Any) -> dict[str, Value]:
    """Return the values of all outputs by name."""
    return {
        "label": [prediction.label.encode() for prediction in predictions],
        "score": np.array([prediction.score for prediction in predictions], _TYPES["FP32"]),
        "review": np.array([prediction.review for prediction in predictions], _TYPES["BOOL"]),
        "probabilities": np.asarray(probabilities, _TYPES["FP32"]).reshape(-1, len(labels)),
    }


def render_response(request: InferRequest, outputs: Mapping[str, Value], version: str) -> tuple[bytes, int | None]:
    """Return the body of a response, and the length of its JSON if there are binary tensors behind it."""
    entries: list[dict[str, object]] = []
    binary: list[bytes] = []
    for name, is_binary in (request.outputs or dict.fromkeys(OUTPUTS, False)).items():
        value = outputs[name]
        shape = [*request.shape, value.shape[-1]] if name == "probabilities" else list(request.shape)  # type: ignore[union-attr]
        entry: dict[str, object] = {"name": name, "datatype": OUTPUTS[name], "shape": shape}
        if is_binary:
            content = dump_bytes(value) if isinstance(value, list) else value.tobytes()
            entry["parameters"] = {"binary_data_size": len(content)}
            binary.append(content)
        else:
            flat = [text.decode() for text in value] if isinstance(value, list) else value.ravel().tolist()
            entry["data"] = flat
        entries.append(entry)
    document: dict[str, object] = {"model_name": SERVED_NAME, "outputs": entries}
    if version:
        document["model_version"] = version
    if request.id:
        document["id"] = request.id
    head = json.dumps(document).encode()  # in ASCII: a client's id may have half of a surrogate pair
    return (b"".join([head, *binary]), len(head)) if binary else (head, None)


def parse_bytes(content: memoryview | bytes) -> Iterator[bytes]:
    """Yield the elements of a BYTES tensor in binary form: every one follows its length in four bytes.

    Raises:
        RequestError: If the last element is cut off.
    """
    position = 0
    while position < len(content):
        if position + 4 > len(content):
            raise RequestError("the last element of a BYTES tensor is cut off")
        (length,) = struct.unpack_from("<I", content, position)
        position += 4
        if position + length > len(content):
            raise RequestError("the last element of a BYTES tensor is cut off")
        yield bytes(content[position : position + length])
        position += length


def dump_bytes(elements: Sequence[bytes]) -> bytes:
    """Return a BYTES tensor in binary form."""
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def _parse_outputs(value: Any, *, binary_by_default: bool) -> dict[str, bool]:
    outputs: dict[str, bool] = {}
    if value is None:
        return dict.fromkeys(OUTPUTS, True) if binary_by_default else {}
    for entry in _check(value, list, "'outputs'"):
        output = _check(entry, dict, "an output")
        name = output.get("name")
        if name not in OUTPUTS:
            raise RequestError(f"there is no output {name!r}: {', '.join(OUTPUTS)}")
        parameters = _check(output.get("parameters", {}), dict, "an output's 'parameters'")
        outputs[name] = parameters.get("binary_data", binary_by_default) is True
    return outputs


def parse_shape(value: Any) -> tuple[int, ...]:
    """Return the shape of an input.

    Raises:
        RequestError: If it is not `[N]` or `[N, 1]`.
    """
    shape = _check(value, list, "an input's 'shape'")
    if not 1 <= len(shape) <= 2 or not all(isinstance(size, int) and not isinstance(size, bool) for size in shape):
        raise RequestError(f"the shape {shape!r} is not read; send [N] or [N, 1]")
    if min(shape) < 0 or (len(shape) == 2 and shape[1] != 1):
        raise RequestError(f"the shape {shape!r} is not read; send [N] or [N, 1]")
    return tuple(shape)


def flatten(value: Any, depth: int = 0) -> Iterator[bytes | str]:
    """Yield the elements of a tensor's data, flat or nested.

    Raises:
        RequestError: If one is no text.
    """
    if isinstance(value, (str, bytes)):
        yield value
    elif isinstance(value, list) and depth < 2:
        for element in value:
            yield from flatten(element, depth + 1)
    else:
        raise RequestError("an input's 'data' must be a list of texts")


def _check(value: Any, kind: type, name: str) -> Any:
    if not isinstance(value, kind):
        raise RequestError(f"{name} must be {kind.__name__}, got {type(value).__name__}")
    return value
