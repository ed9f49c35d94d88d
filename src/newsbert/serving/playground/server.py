"""Web server of the page: three files, and JSON endpoints."""

import functools
import json
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from importlib import resources
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from newsbert.core import loopback, ports
from newsbert.errors import BadRequestError, NewsbertError
from newsbert.serving.playground.models import LoadedModel

MOST_BYTES = 1024 * 1024
"""Maximum size of a request; a served model has the same limit."""

EXAMPLES = (
    "Stocks fall as oil rises",
    "Striker scores twice in cup final",
    "New chip doubles battery life of phones",
    "Ministers sign border treaty after a night of talks",
    "Club sells its stadium to a bank and rents it back",
)
"""Example texts; the last one is ambiguous."""

_FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_HEADERS = {
    # Nothing from other hosts, nothing inline, and no embedding in other pages.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def application(models: Sequence[LoadedModel], hosts: Sequence[str]) -> Starlette:
    """Return the web application for these models.

    Args:
        models: The models to show side by side.
        hosts: Host names that requests may use; otherwise another site could reach this machine by its own name.
    """
    return Starlette(
        routes=[
            *(Route(path, functools.partial(_send_file, name, kind)) for path, (name, kind) in _FILES.items()),
            Route("/models", functools.partial(_list_models, models)),
            Route("/models/{index:int}/predictions", functools.partial(_predict, models), methods=["POST"]),
            Route("/models/{index:int}/explanations", functools.partial(_explain, models), methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)],
    )


def serve(
    models: Sequence[LoadedModel], host: str, port: int, stop: threading.Event, on_ready: Callable[[str], None]
) -> None:
    """Serve the page until `stop` is set.

    Args:
        models: The models to show.
        host: The address to listen on.
        port: The port, or 0 for a free one.
        stop: Ends the server when it is set.
        on_ready: Called with the page's URL when the server answers.

    Raises:
        MachineError: If the port is not available.
    """
    with ports.bind_port(host, port, "newsbert playground --port 0 takes a free port") as listener:
        bound_port = listener.getsockname()[1]
        hosts = ["127.0.0.1", "localhost", ports.connect_host(host)] if loopback.is_loopback(host) else ["*"]
        app = application(models, hosts)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while thread.is_alive() and not server.started:
                thread.join(0.01)
            on_ready(f"http://{ports.connect_host(host)}:{bound_port}")
            while thread.is_alive() and not stop.wait(0.2):
                pass
        finally:
            server.should_exit = True
            thread.join()


async def _send_file(name: str, kind: str, _request: Request) -> Response:
    content = resources.files(__package__).joinpath(name).read_bytes()
    return Response(content, media_type=kind, headers=_HEADERS)


async def _list_models(models: Sequence[LoadedModel], _request: Request) -> Response:
    content = {"models": [model.to_dict() for model in models], "examples": EXAMPLES}
    return JSONResponse(content, headers=_HEADERS)


async def _predict(models: Sequence[LoadedModel], request: Request) -> Response:
    return await _answer(models, request, lambda shown, document: shown.predictor.predict([document["text"]]))


async def _explain(models: Sequence[LoadedModel], request: Request) -> Response:
    return await _answer(
        models,
        request,
        lambda shown, document: shown.predictor.explain([document["text"]], label=document.get("label")),
    )


async def _answer(
    models: Sequence[LoadedModel], request: Request, ask: Callable[[LoadedModel, dict[str, Any]], Sequence[Any]]
) -> Response:
    """Answer a request in a thread, so that the page stays responsive while a model computes."""
    index = request.path_params["index"]
    if index >= len(models):
        return _make_error(HTTPStatus.NOT_FOUND, f"there is no model {index}")
    # A form on another page cannot send JSON without a CORS preflight, which gets no approval.
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return _make_error(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            return _make_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the text is longer than {MOST_BYTES:,} bytes")
    try:
        (answer,) = await run_in_threadpool(ask, models[index], _parse_body(body))
    except (ValueError, RecursionError) as error:
        return _make_error(HTTPStatus.BAD_REQUEST, str(error))
    except BadRequestError as error:
        return _make_error(HTTPStatus.BAD_REQUEST, error.message)
    except NewsbertError as error:  # of the remote server
        return _make_error(HTTPStatus.BAD_GATEWAY, error.message, error.hint)
    return JSONResponse(answer.to_dict(), headers=_HEADERS)


def _parse_body(body: bytes | bytearray) -> dict[str, Any]:
    """Parse the body of a request.

    Raises:
        ValueError: If it is not an object with a text.
    """
    content = json.loads(body)
    if not isinstance(content, dict) or not isinstance(content.get("text"), str):
        raise ValueError("expected an object with 'text'")
    return content


def _make_error(status: HTTPStatus, message: str, hint: str | None = None) -> Response:
    return JSONResponse({"message": message, "hint": hint}, status, headers=_HEADERS)
