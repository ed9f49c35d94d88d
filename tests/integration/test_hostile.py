"""Requests that mean harm, to a real server: of every shape, from its OpenAPI description, and known attacks."""

import asyncio
import json
import os
import random
import socket
import stat
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar, cast

import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from newsbert.serving import local, openapi
from newsbert.serving.torchserve import process
from tests.support import processes

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the benchmarks are not in a source distribution")
sys.path.append(str(BENCHMARKS))
hostile: Any = pytest.importorskip("hostile")

SCHEMA = schemathesis.openapi.from_dict(openapi.read_description("torchserve"))
NATIVE_SCHEMA = schemathesis.openapi.from_dict(openapi.read_description("native"))
PREDICT = SCHEMA["/predictions/news_classification"]["POST"]
NATIVE_OPERATIONS: list[Any] = [cast(Any, result).ok() for result in NATIVE_SCHEMA.get_all_operations()]
CONFORMS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)
GOOD = "goal team cup"
Test = TypeVar("Test", bound=Callable[..., None])


def _ask(any_server: local.Server) -> dict[str, float]:
    request = urllib.request.Request(any_server.address.predictions_url, GOOD.encode(), {"Content-Type": "text/plain"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return dict(json.load(response)["probabilities"])


# Every shape


@pytest.mark.parametrize("shape", hostile.SHAPES, ids=lambda shape: shape.name)
def test_every_shape_gets_its_status(any_server: local.Server, shape: Any) -> None:
    answer = asyncio.run(hostile.send(any_server.address.port, shape, random.Random(1)))
    if not isinstance(any_server, process.Server):
        assert answer.status in hostile.get_statuses(shape, "native"), answer.body[:300]
        assert answer.status < 500
        return
    assert answer.status in shape.statuses, answer.body[:300]
    if answer.status == 500:
        # These exceptions are the frontend's; any other is ours.
        assert json.loads(answer.body)["type"] in {
            "ErrorDataDecoderException",
            "StringIndexOutOfBoundsException",
            "ArrayIndexOutOfBoundsException",
        }


def test_a_good_request_is_answered_alike_whatever_goes_on_beside_it(any_server: local.Server) -> None:
    alone = _ask(any_server)

    async def all_at_once() -> list[Any]:
        rng = random.Random(3)
        good = hostile.Shape("good", {200}, lambda _: hostile.post(GOOD.encode(), "text/plain"))
        gate = asyncio.Semaphore(12)

        async def one(shape: Any) -> Any:
            async with gate:
                return shape is good, await hostile.send(any_server.address.port, shape, rng)

        shapes = [*hostile.SHAPES, *[good] * 200]
        rng.shuffle(shapes)
        return await asyncio.gather(*map(one, shapes))

    answers = [answer for is_good, answer in asyncio.run(all_at_once()) if is_good]
    assert {answer.status for answer in answers} == {200}
    for answer in answers:
        assert json.loads(answer.body)["probabilities"] == pytest.approx(alone, abs=1e-3)


# From the description


def _generated(operations: list[Any], mode: GenerationMode, examples: int) -> Callable[[Test], Test]:
    def decorate(test: Test) -> Test:
        strategy = st.one_of([operation.as_strategy(generation_mode=mode) for operation in operations])
        limits = settings(
            max_examples=examples,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        )
        return cast(Test, limits(given(case=strategy)(test)))

    return decorate


@_generated([PREDICT], GenerationMode.POSITIVE, 300)
def test_what_the_description_allows_is_answered_by_it(server: process.Server, case: Any) -> None:
    _check_torchserve(server, case)


@_generated([PREDICT], GenerationMode.NEGATIVE, 300)
def test_what_the_description_forbids_is_refused_by_it(server: process.Server, case: Any) -> None:
    _check_torchserve(server, case)


def _check_torchserve(server: process.Server, case: Any) -> None:
    response = case.call(base_url=server.address.url)
    if response.status_code == 500 and case.media_type not in {"application/json", "text/plain"}:
        assert json.loads(response.content)["type"] == "ErrorDataDecoderException"
        return
    case.validate_response(response, checks=CONFORMS)


@_generated(NATIVE_OPERATIONS, GenerationMode.POSITIVE, 600)
def test_what_the_native_description_allows_is_answered_by_it(native_server: local.Server, case: Any) -> None:
    case.validate_response(case.call(base_url=native_server.address.url), checks=CONFORMS)


@_generated([operation for operation in NATIVE_OPERATIONS if operation.body], GenerationMode.NEGATIVE, 600)
def test_what_the_native_description_forbids_is_refused_by_it(native_server: local.Server, case: Any) -> None:
    case.validate_response(case.call(base_url=native_server.address.url), checks=CONFORMS)


# Known attacks on TorchServe


@pytest.fixture
def bait() -> Iterator[tuple[str, list[str]]]:
    """The URL of a web server that offers an archive, and the requests that it got."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}", requests
        http.shutdown()
        thread.join()


def _list_open_ports() -> set[int]:
    """Return the ports that a client can connect to; tests/integration/test_sockets.py tries the other one."""
    return {
        connection.laddr.port
        for connection in processes.frontend().net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
        and connection.laddr.ip.removeprefix("::ffff:") in {"127.0.0.1", "0.0.0.0", "::"}
    }


def test_nothing_is_registered_from_a_url(server: process.Server, bait: tuple[str, list[str]]) -> None:
    url, requests = bait
    body = json.dumps({"url": f"{url}/evil.mar", "model_name": "evil", "initial_workers": 1}).encode()
    form = f"url={url}/evil.mar".encode()
    for port in _list_open_ports():
        for path in ("/models", "/workflows"):
            for request in (
                hostile.post(b"", None, path=f"{path}?url={url}/evil.mar"),
                hostile.post(body, path=path),
                hostile.post(form, "application/x-www-form-urlencoded", path=path),
            ):
                shape = hostile.Shape("attack", set(), lambda _, request=request: request)
                answer = asyncio.run(hostile.send(port, shape, random.Random(1)))
                assert answer.status not in {200, 202}
    assert requests == []


def test_management_over_its_socket_registers_nothing_either(
    server: process.Server, bait: tuple[str, list[str]]
) -> None:
    """Not even the server's own user: the interface is switched off, and no URL is allowed."""
    url, requests = bait
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(server.management))
        connection.sendall(hostile.post(b"", None, path=f"/models?url={url}/evil.mar"))
        status = int(connection.recv(65536).split()[1])
    assert status in {403, 404, 405}
    assert requests == []


def test_grpc_management_answers_nobody(server: process.Server, bait: tuple[str, list[str]]) -> None:
    import grpc

    url, requests = bait
    archive_url = f"{url}/evil.mar".encode()
    request = bytes([7 << 3 | 2, len(archive_url)]) + archive_url
    for port in _list_open_ports():
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/org.pytorch.serve.grpc.management.ManagementAPIsService/RegisterModel")
            with pytest.raises(grpc.RpcError):
                call(request, timeout=5)
    assert requests == []


def test_only_the_servers_user_can_open_its_management(server: process.Server) -> None:
    assert stat.S_ISSOCK(server.management.stat().st_mode)
    assert stat.S_IMODE(server.management.stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE(server.management.parent.stat().st_mode) & 0o077 == 0
    if os.geteuid() != 0:
        pytest.skip("only root can try it as another user")
    pid = os.fork()
    if pid == 0:
        os.setgid(65534)
        os.setuid(65534)
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(server.management))
            except PermissionError:
                os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
