"""The inference runtime with which MLServer serves a bundle: the `implementation` of its model-settings.json.

It runs in MLServer's environment, which needs newsbert, too. See https://mlserver.readthedocs.io/en/stable/user-guide/custom.html.
"""

import asyncio
from pathlib import Path

from mlserver import MLModel
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from mlserver.utils import get_model_uri

from newsbert.serving.native import open_inference
from newsbert.serving.repository.inference import TensorModel
from newsbert.serving.requests import RequestError


class NewsbertRuntime(MLModel):  # type: ignore[misc]
    """A model of newsbert's."""

    async def load(self) -> bool:
        """Load the bundle that the settings name, and check its golden texts."""
        extra = self.settings.parameters.extra
        directory = Path(await get_model_uri(self.settings))
        self._tensors = await asyncio.to_thread(TensorModel, directory, extra["name"], extra["runtime"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer a request.

        Raises:
            InferenceError: If it is not valid.
        """
        tensors: dict[str, tuple[tuple[int, ...], list[bytes | str]]] = {}
        try:
            for tensor in payload.inputs:
                open_inference.check_input(tensor.name, tensor.datatype, tensors)
                elements: list[bytes | str] = list(open_inference.flatten(tensor.data.root))
                tensors[tensor.name] = open_inference.parse_shape(tensor.shape), elements
            outputs = await asyncio.to_thread(self._tensors.infer, tensors)
        except RequestError as error:
            raise InferenceError(str(error)) from error
        shape = tensors["text"][0]
        wanted = [output.name for output in payload.outputs or ()] or list(open_inference.OUTPUTS)
        return InferenceResponse(
            id=payload.id,
            model_name=self.name,
            model_version=self.version,
            outputs=[self._make_output(name, shape, outputs[name]) for name in wanted if name in outputs],
        )

    @staticmethod
    def _make_output(name: str, shape: tuple[int, ...], value: open_inference.Value) -> ResponseOutput:
        if isinstance(value, list):
            data: list[object] = [element.decode() for element in value]
        else:
            data, shape = value.ravel().tolist(), (*shape, *value.shape[1:])
        return ResponseOutput(name=name, shape=list(shape), datatype=open_inference.OUTPUTS[name], data=data)
