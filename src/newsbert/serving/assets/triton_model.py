"""The model of Triton's Python backend: written by `newsbert export model-repository --for triton`.

Triton runs it in its own Python, which needs newsbert: https://github.com/triton-inference-server/python_backend.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton

from newsbert.serving.repository.inference import TensorModel
from newsbert.serving.requests import RequestError


class TritonPythonModel:
    """A model of newsbert's."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the bundle beside this file, and check its golden texts."""
        parameters = json.loads(args["model_config"])["parameters"]
        name, runtime = (parameters[key]["string_value"] for key in ("name", "runtime"))
        self._model = TensorModel(Path(__file__).parent / "bundle", name, runtime)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request by itself."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        tensors: dict[str, tuple[tuple[int, ...], list[bytes | str]]] = {}
        for name in ("text", "title"):
            tensor = triton.get_input_tensor_by_name(request, name)
            if tensor is not None:
                array = tensor.as_numpy()
                tensors[name] = tuple(array.shape), list(array.ravel())
        try:
            outputs = self._model.infer(tensors)
        except RequestError as error:
            return triton.InferenceResponse(error=triton.TritonError(str(error)))
        shape = tensors["text"][0]
        arrays = {
            name: np.array(value, object).reshape(shape) if isinstance(value, list) else value
            for name, value in outputs.items()
        }
        return triton.InferenceResponse(
            [
                triton.Tensor(name, arrays[name].reshape(*shape, *arrays[name].shape[1:]))
                for name in request.requested_output_names()
            ]
        )
