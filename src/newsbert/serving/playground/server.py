"""The page's server: three files, and answers in JSON."""

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
"""Of a request, as a served model takes them."""

EXAMPLES = (
    "Stocks fall as oil rises",
    "Striker scores twice in cup final",
    "New chip doubles battery life of phones",
    "Ministers sign border treaty after a night of talks",
    "Club sells its stadium to a bank and rents it back",
)
"""Texts to begin with; the last could be one thing or another."""

_FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_HEADERS = {
    # Nothing from elsewhere, nothing inline, and no other page may hold this one.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def application(models: Sequence[LoadedModel], hosts: Sequence[str]) -> Starlette:
    """The page of these models.

    Args:
        models: What it shows, beside each other.
        hosts: What requests may call this machine; a page elsewhere could reach it by a name of its own otherwise.
    """
    return Starlette(
        routes=[
            *(Route(path, functools.partial(_file, name, kind)) for path, (name, kind) in _FILES.items()),
            Route("/models", functools.partial(_models, models)),
            Route("/models/{index:int}/predictions", functools.partial(_predictions, models), methods=["POST"]),
            Route("/models/{index:int}/explanations", functools.partial(_explanations, models), methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)],
    )


def serve(
    models: Sequence[LoadedModel], host: str, port: int, stop: threading.Event, on_ready: Callable[[str], None]
) -> None:
    """Serve the page until `stop` is set.

    Args:
        models: What it shows.
        host: The address it answers on.
        port: The port, or 0 for a free one.
        stop: Ends it.
        on_ready: Called with the page's URL when it answers.

    Raises:
        MachineError: If the port cannot be had.
    """
    with ports.bind_port(host, port, "newsbert playground --port 0 takes a free port") as listener:
        taken = listener.getsockname()[1]
        hosts = ["127.0.0.1", "localhost", ports.connect_host(host)] if loopback.is_loopback(host) else ["*"]
        app = application(models, hosts)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while thread.is_alive() and not server.started:
                thread.join(0.01)
            on_ready(f"http://{ports.connect_host(host)}:{taken}")
            while thread.is_alive() and not stop.wait(0.2):
                pass
        finally:
            server.should_exit = True
            thread.join()


async def _file(name: str, kind: str, _request: Request) -> Response:
    content = resources.files(__package__).joinpath(name).read_bytes()
    return Response(content, media_type=kind, headers=_HEADERS)


async def _models(models: Sequence[LoadedModel], _request: Request) -> Response:
    content = {"models": [each.to_dict() for each in models], "examples": EXAMPLES}
    return JSONResponse(content, headers=_HEADERS)


async def _predictions(models: Sequence[LoadedModel], request: Request) -> Response:
    return await _answered(models, request, lambda shown, asked: shown.predictor.predict([asked["text"]]))


async def _explanations(models: Sequence[LoadedModel], request: Request) -> Response:
    return await _answered(
        models, request, lambda shown, asked: shown.predictor.explain([asked["text"]], label=asked.get("label"))
    )


async def _answered(
    models: Sequence[LoadedModel], request: Request, ask: Callable[[LoadedModel, dict[str, Any]], Sequence[Any]]
) -> Response:
    """Answer a request in a thread: the page goes on while a model computes."""
    index = request.path_params["index"]
    if index >= len(models):
        return _refused(HTTPStatus.NOT_FOUND, f"there is no model {index}")
    # A form on another page can send no JSON without asking first, and is not answered.
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return _refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            return _refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the text is longer than {MOST_BYTES:,} bytes")
    try:
        (answer,) = await run_in_threadpool(ask, models[index], _asked(body))
    except (ValueError, RecursionError) as error:
        return _refused(HTTPStatus.BAD_REQUEST, str(error))
    except BadRequestError as error:
        return _refused(HTTPStatus.BAD_REQUEST, error.message)
    except NewsbertError as error:  # the server that is asked
        return _refused(HTTPStatus.BAD_GATEWAY, error.message, error.hint)
    return JSONResponse(answer.to_dict(), headers=_HEADERS)


def _asked(body: bytes | bytearray) -> dict[str, Any]:
    """What a request asks.

    Raises:
        ValueError: If it is no object with a text.
    """
    asked = json.loads(body)
    if not isinstance(asked, dict) or not isinstance(asked.get("text"), str):
        raise ValueError("expected an object with 'text'")
    return asked


def _refused(status: HTTPStatus, message: str, hint: str | None = None) -> Response:
    return JSONResponse({"message": message, "hint": hint}, status, headers=_HEADERS)
