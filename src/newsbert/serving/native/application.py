"""The HTTP interface of the native server, as an ASGI application.

Requests and answers are those of TorchServe's handler: they are parsed, limited and rendered by the same code. Beside
them stands the Open Inference Protocol.
"""

import asyncio
import json
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

from newsbert.core.settings import NATIVE
from newsbert.serving import batches, openapi
from newsbert.serving.native import open_inference
from newsbert.serving.native.forms import parse_parameters
from newsbert.serving.native.service import Answers, OverloadError, PredictionService
from newsbert.serving.native.tokens import Authenticator
from newsbert.serving.native.tracing import Stage, Tracer, parse_trace_id
from newsbert.serving.protocol import MODEL_HEADER, SERVED_NAME
from newsbert.serving.requests import (
    EXPLAIN_HEADER,
    JSON,
    ParsedRequest,
    RequestError,
    make_model_failed_error,
)
from newsbert.serving.responses import RETRY_AFTER_S, describe, render

MAX_BODY_BYTES = 1024 * 1024
MAX_DISCARDED_BYTES = 8 * MAX_BODY_BYTES
"""Number of bytes of a body that is too large, up to which the client can send it and still read the answer."""

_THREAD_BYTES = 32 * 1024
"""Size of a body above which it is parsed in a thread, so that no other request waits for it."""

_PROTOCOL_PATH = "/v2"
_CSP_HEADER = (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'")

_log = logging.getLogger(__name__)

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Headers = Mapping[str, str]
Parsed = TypeVar("Parsed")


class DisconnectError(Exception):
    """The error for a client that has closed its connection before its request was complete."""


@dataclass(frozen=True)
class Response:
    """An HTTP response."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Application:
    """The ASGI application of a served model.

    Args:
        service: Answers the requests.
        authenticator: Checks tokens; no token is required if it is `None`.
        cors_origin: Origin whose pages may send requests; `*` for any.
        tracer: Exports spans of requests.

    Attributes:
        closing: Whether the server stops: it is not ready, and connections are closed after their answers.
    """

    def __init__(
        self,
        service: PredictionService,
        authenticator: Authenticator | None = None,
        cors_origin: str | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._service, self._authenticator, self._tracer = service, authenticator, tracer
        model = service.model
        self._model_header = (MODEL_HEADER.lower().encode(), model.header.encode())
        self._cors_headers = _make_cors_headers(cors_origin)
        self._metadata = open_inference.describe_model(model.labels, model.version)
        self.closing = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        try:
            response = await self._respond(scope, receive)
        except DisconnectError:
            return
        except Exception:  # any error: every client gets a response, and the log one line
            _log.exception("request-failed")
            response = _refuse(scope["path"], make_model_failed_error())
        headers = [
            (b"content-type", response.content_type.encode()),
            (b"content-length", b"%d" % len(response.body)),
            *response.headers,
            *self._cors_headers,
        ]
        if self.closing or response.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else response.body})

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        path = scope["path"]
        parts = path.split("/")[1:]
        methods = _list_methods(parts)
        if not methods:
            return _refuse(path, RequestError(f"there is no {path}", HTTPStatus.NOT_FOUND))
        method = scope["method"]
        if method == "OPTIONS":
            return Response(HTTPStatus.OK, headers=((b"allow", ", ".join(methods).encode()),))
        if method not in methods:
            error = RequestError(f"send {' or '.join(methods)}, not {method}", HTTPStatus.METHOD_NOT_ALLOWED)
            return _refuse(path, error, (b"allow", ", ".join(methods).encode()))
        match parts:
            case ["ping"]:
                return _json({"status": "Stopping" if self.closing else "Healthy"}, self._health)
            case ["openapi.json"]:
                return Response(HTTPStatus.OK, openapi.render_json(NATIVE))
            case ["docs"]:
                return Response(HTTPStatus.OK, openapi.render_html(NATIVE), "text/html; charset=utf-8", (_CSP_HEADER,))
            case ["v2", "health", "live"]:
                return _json({"live": True})
            case ["v2", "health", "ready"]:
                return _json({"ready": not self.closing}, self._health)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if self._authenticator and not self._authenticator.accepts(headers.get("authorization")):
            error = RequestError("send a valid token: Authorization: Bearer TOKEN", HTTPStatus.UNAUTHORIZED)
            return _refuse(path, error, (b"www-authenticate", b"Bearer"))
        started_s = time.monotonic()
        response, stages = await self._respond_with_model(parts, scope, headers, receive)
        if self._tracer is not None and response.status != HTTPStatus.NOT_FOUND:  # whose path may be anything
            self._tracer.record(method, path, response.status, started_s, headers, stages)
        return response

    async def _respond_with_model(
        self, parts: Sequence[str], scope: Scope, headers: dict[str, str], receive: Receive
    ) -> tuple[Response, Sequence[Stage]]:
        """Answer a request about the model, and return what was done for it, too."""
        match parts:
            case ["v2"]:
                return _json(open_inference.describe_server()), ()
            case ["v2", "models", name, *rest]:
                return await self._respond_as_protocol(name, rest, headers, receive)
            case [kind, name, *_] if name == SERVED_NAME:
                return await self._predict(scope, headers, receive, explained=kind == "explanations")
        error = RequestError(f"there is no model {parts[1]!r}: {SERVED_NAME}", HTTPStatus.NOT_FOUND)
        return _refuse(scope["path"], error), ()

    @property
    def _health(self) -> HTTPStatus:
        return HTTPStatus.SERVICE_UNAVAILABLE if self.closing else HTTPStatus.OK

    async def _predict(
        self, scope: Scope, headers: dict[str, str], receive: Receive, *, explained: bool
    ) -> tuple[Response, Sequence[Stage]]:
        if explained:
            headers[EXPLAIN_HEADER] = "True"
        else:
            headers.pop(EXPLAIN_HEADER, None)
        model = self._service.model

        def parse(body: bytes) -> ParsedRequest:
            parameters = parse_parameters(scope["query_string"], headers, body)
            return batches.parse_one(parameters, headers, model.runtime, model.labels)

        def render_answers(request: ParsedRequest, answers: Answers) -> Response:
            content_type, body = render(answers.items, request.many, headers)
            return Response(HTTPStatus.OK, body, content_type, (self._model_header,))

        try:
            body = await _read_body(headers, receive)
            request = await _parse(parse, body)
            answers = await self._service.answer(request, parse_trace_id(headers))
            response = render_answers(request, answers)
        except RequestError as error:
            self._service.count(error.status)
            return _refuse(scope["path"], error, self._model_header), ()
        self._service.count(response.status, answers)
        return response, answers.stages

    async def _respond_as_protocol(
        self, name: str, rest: Sequence[str], headers: Headers, receive: Receive
    ) -> tuple[Response, Sequence[Stage]]:
        """Answer a request of the Open Inference Protocol for a model."""
        version = self._service.model.version
        if rest and rest[0] == "versions":
            requested, rest = rest[1], rest[2:]
        else:
            requested = version
        if name != SERVED_NAME or requested != version:
            known = f"{SERVED_NAME}, version {version}" if version else SERVED_NAME
            error = RequestError(f"there is no such model: {known}", HTTPStatus.NOT_FOUND)
            return _refuse(_PROTOCOL_PATH, error), ()
        match rest:
            case ["ready"]:
                return _json({"name": name, "ready": not self.closing}, self._health), ()
            case ["infer"]:
                return await self._infer(headers, receive)
        return _json(self._metadata), ()

    async def _infer(self, headers: Headers, receive: Receive) -> tuple[Response, Sequence[Stage]]:
        model = self._service.model

        def parse(body: bytes) -> tuple[open_inference.InferRequest, ParsedRequest]:
            request = open_inference.parse_request(body, headers.get(open_inference.HEADER_LENGTH))
            return request, batches.prepare(request.items, model.runtime)

        try:
            request, parsed = await _parse(parse, await _read_body(headers, receive))
            answers = await self._service.answer(parsed, parse_trace_id(headers))
        except RequestError as error:
            self._service.count(error.status)
            return _refuse(_PROTOCOL_PATH, error, self._model_header), ()
        self._service.count(HTTPStatus.OK, answers)
        outputs = open_inference.make_outputs(answers.predictions, model.labels, answers.probabilities)
        body, json_length = open_inference.render_response(request, outputs, model.version)
        if json_length is None:
            return Response(HTTPStatus.OK, body, headers=(self._model_header,)), answers.stages
        length_header = (open_inference.HEADER_LENGTH.encode(), b"%d" % json_length)
        response = Response(HTTPStatus.OK, body, "application/octet-stream", (self._model_header, length_header))
        return response, answers.stages


def _refuse(path: str, error: RequestError, *headers: tuple[bytes, bytes]) -> Response:
    """Return the response to a request that is not answered, in the form of the protocol of its path."""
    body = json.dumps({"error": str(error)}).encode() if path.startswith(_PROTOCOL_PATH) else describe(error)
    return Response(error.status, body, headers=(*headers, *_make_retry_headers(error)))


def _make_retry_headers(error: RequestError) -> tuple[tuple[bytes, bytes], ...]:
    if error.status != HTTPStatus.SERVICE_UNAVAILABLE:
        return ()
    retry_after_ms = error.retry_after_ms if isinstance(error, OverloadError) else 1000 * RETRY_AFTER_S
    seconds, milliseconds = max(1, math.ceil(retry_after_ms / 1000)), max(1, retry_after_ms)
    return (b"retry-after", b"%d" % seconds), (b"retry-after-ms", b"%d" % milliseconds)


def _list_methods(parts: Sequence[str]) -> tuple[str, ...]:
    """Return the methods that a path takes; none if there is no such path."""
    match parts:
        case ["predictions" | "explanations", _] | ["predictions" | "explanations", _, "1.0"]:
            return "POST", "PUT", "GET"
        case ["v2", "models", _, "infer"] | ["v2", "models", _, "versions", _, "infer"]:
            return ("POST",)
        case (
            ["ping"]
            | ["openapi.json" | "docs"]
            | ["v2"]
            | ["v2", "health", "live" | "ready"]
            | ["v2", "models", _]
            | ["v2", "models", _, "ready"]
            | ["v2", "models", _, "versions", _]
            | ["v2", "models", _, "versions", _, "ready"]
        ):
            return "GET", "HEAD"
    return ()


def _make_cors_headers(origin: str | None) -> tuple[tuple[bytes, bytes], ...]:
    if origin is None:
        return ()
    return (
        (b"access-control-allow-origin", origin.encode()),
        (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
        (b"access-control-allow-headers", b"Accept, Authorization, Content-Type, Tier"),
    )


def _json(
    document: Mapping[str, object], status: HTTPStatus = HTTPStatus.OK, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> Response:
    return Response(status, json.dumps(document).encode(), headers=headers)


async def _parse(parse: Callable[[bytes], Parsed], body: bytes) -> Parsed:
    return await asyncio.to_thread(parse, body) if len(body) > _THREAD_BYTES else parse(body)


async def _read_body(headers: Headers, receive: Receive) -> bytes:
    """Return the body of a request.

    Raises:
        RequestError: If it is too large.
        DisconnectError: If the client closes the connection before its end.
    """
    if int(headers.get("content-length", "0")) > MAX_DISCARDED_BYTES:  # the HTTP parser has checked the number
        raise _make_too_large_error()
    parts: list[bytes] = []
    num_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise DisconnectError
        part = message.get("body", b"")
        num_bytes += len(part)
        if num_bytes <= MAX_BODY_BYTES:
            parts.append(part)
        elif num_bytes > MAX_DISCARDED_BYTES:
            raise _make_too_large_error()
        if not message.get("more_body"):
            break
    if num_bytes > MAX_BODY_BYTES:
        raise _make_too_large_error()
    return b"".join(parts)


def _make_too_large_error() -> RequestError:
    return RequestError(f"the body has more than {MAX_BODY_BYTES} bytes", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
