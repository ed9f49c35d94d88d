"""The Open Inference Protocol, version 2, over gRPC.

`proto/open_inference_grpc.proto` is the protocol's public description
(https://github.com/kserve/open-inference-protocol, revision d49cc23). The module beside it is made by
`python -m grpc_tools.protoc -I. --python_out=. open_inference_grpc.proto`.
"""

import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import grpc
import numpy as np

from newsbert.serving import batches
from newsbert.serving.native import open_inference
from newsbert.serving.native.application import MAX_BODY_BYTES
from newsbert.serving.native.certificate import Certificate
from newsbert.serving.native.proto import open_inference_grpc_pb2
from newsbert.serving.native.service import OverloadError, PredictionService
from newsbert.serving.native.tokens import Authenticator
from newsbert.serving.native.tracing import Stage, Tracer, parse_trace_id
from newsbert.serving.protocol import SERVED_NAME
from newsbert.serving.requests import RequestError

messages: Any = open_inference_grpc_pb2

SERVICE = "inference.GRPCInferenceService"

_MARGIN_BYTES = 64 * 1024
"""Room for what a message has beside its texts."""

_CODES = {
    HTTPStatus.BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    HTTPStatus.SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}
_PUSHBACK = "grpc-retry-pushback-ms"
"""Metadata by which gRPC's clients wait before they try again."""

_Method = Callable[[Any, Any], Awaitable[Any]]


class InferenceService:
    """The methods of the protocol.

    Args:
        service: Answers the requests.
        authenticator: Checks tokens; no token is required if it is `None`.
        tracer: Exports spans of requests.

    Attributes:
        closing: Whether the server stops: it is not ready.
    """

    def __init__(
        self, service: PredictionService, authenticator: Authenticator | None, tracer: Tracer | None = None
    ) -> None:
        self._service, self._authenticator, self._tracer = service, authenticator, tracer
        self.closing = False

    def make_handler(self) -> Any:
        """Return the handler for gRPC's server."""
        methods: Mapping[str, tuple[_Method, Any]] = {
            "ServerLive": (self._get_live, messages.ServerLiveRequest),
            "ServerReady": (self._get_ready, messages.ServerReadyRequest),
            "ModelReady": (self._get_model_ready, messages.ModelReadyRequest),
            "ServerMetadata": (self._get_server_metadata, messages.ServerMetadataRequest),
            "ModelMetadata": (self._get_model_metadata, messages.ModelMetadataRequest),
            "ModelInfer": (self._infer, messages.ModelInferRequest),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                method, request.FromString, lambda response: response.SerializeToString()
            )
            for name, (method, request) in methods.items()
        }
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    async def _get_live(self, request: Any, context: Any) -> Any:
        return messages.ServerLiveResponse(live=True)

    async def _get_ready(self, request: Any, context: Any) -> Any:
        return messages.ServerReadyResponse(ready=not self.closing)

    async def _get_model_ready(self, request: Any, context: Any) -> Any:
        await self._check_model(request.name, request.version, context)
        return messages.ModelReadyResponse(ready=not self.closing)

    async def _get_server_metadata(self, request: Any, context: Any) -> Any:
        await self._check_token(context)
        return messages.ServerMetadataResponse(**{**open_inference.describe_server(), "extensions": []})

    async def _get_model_metadata(self, request: Any, context: Any) -> Any:
        await self._check_token(context)
        await self._check_model(request.name, request.version, context)
        model = self._service.model
        metadata = open_inference.describe_model(model.labels, model.version)
        response = messages.ModelMetadataResponse(
            name=metadata["name"], versions=metadata["versions"], platform=metadata["platform"]
        )
        for entries, target in ((metadata["inputs"], response.inputs), (metadata["outputs"], response.outputs)):
            for entry in entries:
                target.add(name=entry["name"], datatype=entry["datatype"], shape=entry["shape"])
        response.properties["labels"] = json.dumps(list(model.labels), ensure_ascii=False)
        return response

    async def _infer(self, request: Any, context: Any) -> Any:
        await self._check_token(context)
        await self._check_model(request.model_name, request.model_version, context)
        model = self._service.model
        started_s, headers = time.monotonic(), dict(context.invocation_metadata())
        try:
            parsed = parse_request(request)
            answers = await self._service.answer(batches.prepare(parsed.items, model.runtime), parse_trace_id(headers))
        except RequestError as error:
            self._service.count(error.status)
            self._trace(error.status, started_s, headers, ())
            if isinstance(error, OverloadError):
                context.set_trailing_metadata(((_PUSHBACK, str(max(1, error.retry_after_ms))),))
            await context.abort(_CODES.get(error.status, grpc.StatusCode.INTERNAL), str(error))
            raise
        self._service.count(HTTPStatus.OK, answers)
        self._trace(HTTPStatus.OK, started_s, headers, answers.stages)
        outputs = open_inference.make_outputs(answers.predictions, model.labels, answers.probabilities)
        return render_response(parsed, outputs, model.version)

    def _trace(self, status: int, started_s: float, headers: Mapping[str, str], stages: Sequence[Stage]) -> None:
        if self._tracer is not None:
            self._tracer.record("POST", f"/{SERVICE}/ModelInfer", status, started_s, headers, stages)

    async def _check_token(self, context: Any) -> None:
        if self._authenticator is None:
            return
        metadata = dict(context.invocation_metadata())
        if not self._authenticator.accepts(metadata.get("authorization")):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "send a valid token: authorization: Bearer TOKEN")

    async def _check_model(self, name: str, version: str, context: Any) -> None:
        known = self._service.model.version
        if name != SERVED_NAME or version not in {"", known}:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no such model: {SERVED_NAME} {known}".rstrip())


def parse_request(request: Any) -> open_inference.InferRequest:
    """Parse a request for inference.

    Raises:
        RequestError: If it is not valid.
    """
    tensors: dict[str, tuple[tuple[int, ...], list[bytes | str]]] = {}
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise RequestError(f"{len(request.inputs)} inputs, and {len(raw)} raw contents for them")
    for index, tensor in enumerate(request.inputs):
        open_inference.check_input(tensor.name, tensor.datatype, tensors)
        elements = open_inference.parse_bytes(raw[index]) if raw else tensor.contents.bytes_contents
        tensors[tensor.name] = open_inference.parse_shape(list(tensor.shape)), list(elements)
    unknown = {output.name for output in request.outputs} - open_inference.OUTPUTS.keys()
    if unknown:
        raise RequestError(f"there is no output {min(unknown)!r}: {', '.join(open_inference.OUTPUTS)}")
    outputs = {output.name: bool(raw) for output in request.outputs}
    items = open_inference.make_items(tensors)
    return open_inference.InferRequest(
        request.id, items, tensors["text"][0], outputs or dict.fromkeys(open_inference.OUTPUTS, bool(raw))
    )


def render_response(
    request: open_inference.InferRequest, outputs: Mapping[str, open_inference.Value], version: str
) -> Any:
    """Return the response, with raw contents if the request had them."""
    response = messages.ModelInferResponse(model_name=SERVED_NAME, model_version=version, id=request.id)
    for name, is_raw in request.outputs.items():
        value = outputs[name]
        shape = [*request.shape, *(value.shape[1:] if isinstance(value, np.ndarray) else ())]
        tensor = response.outputs.add(name=name, datatype=open_inference.OUTPUTS[name], shape=shape)
        if is_raw:
            content = open_inference.dump_bytes(value) if isinstance(value, list) else value.tobytes()
            response.raw_output_contents.append(content)
        elif isinstance(value, list):
            tensor.contents.bytes_contents.extend(value)
        elif value.dtype == np.bool_:
            tensor.contents.bool_contents.extend(value.tolist())
        else:
            tensor.contents.fp32_contents.extend(value.ravel().tolist())
    return response


async def start(service: InferenceService, address: str, certificate: Certificate | None, max_waiting: int) -> Any:
    """Start gRPC's server on an address, which other workers may share, and return it.

    Args:
        service: The methods.
        address: `HOST:PORT`.
        certificate: Certificate of TLS; without one, connections have no TLS.
        max_waiting: Maximum number of requests at the same time.

    Raises:
        RuntimeError: If it cannot listen there.
    """
    server = grpc.aio.server(
        options=(
            ("grpc.so_reuseport", 1),
            ("grpc.max_receive_message_length", MAX_BODY_BYTES + _MARGIN_BYTES),
            ("grpc.max_concurrent_streams", max_waiting),
        ),
        maximum_concurrent_rpcs=max_waiting,
    )
    server.add_generic_rpc_handlers((service.make_handler(),))
    if certificate is None:
        server.add_insecure_port(address)
    else:

        def configure() -> Any:
            return grpc.ssl_server_certificate_configuration([certificate.pem])

        # gRPC calls it for every connection.
        server.add_secure_port(address, grpc.dynamic_ssl_server_credentials(configure(), configure))
    await server.start()
    return server
