"""Hostile and unusual requests of many shapes, with the statuses that their answers may have.

They are bytes on a socket, because an HTTP library would refuse to send most of them.
`tests/integration/test_hostile.py` sends every shape once, `benchmarks/soak.py` all of them in random order for
minutes.
"""

import asyncio
import contextlib
import gzip
import json
import random
from collections.abc import Callable
from dataclasses import dataclass

PATH = "/predictions/news_classification"
MAX_BODY_BYTES = 1024 * 1024
_JSON, _TEXT, _FORM = "application/json", "text/plain", "application/x-www-form-urlencoded"
_SLOW_S = 0.02
_TIMEOUT_S = 60.0

OK, BAD, LARGE, TYPE, ABSENT, METHOD = {200}, {400}, {413}, {415}, {404}, {405}
CLOSED = 0
"""Status if the connection was closed without an answer."""


@dataclass(frozen=True)
class Shape:
    """A kind of request.

    Attributes:
        name: Name in the reports.
        statuses: Statuses that the answer may have; `CLOSED` for no answer.
        make: Function that returns the whole request.
        parts: Number of parts in which it is sent, with a pause after every part.
        hangs_up: Whether the client closes the connection after sending and does not wait for an answer.
        cut: Whether the client ends its side of the connection after sending, before the announced length.
    """

    name: str
    statuses: set[int]
    make: Callable[[random.Random], bytes]
    parts: int = 1
    hangs_up: bool = False
    cut: bool = False


NATIVE_STATUSES: dict[str, set[int]] = {
    "DELETE /predictions/news_classification": METHOD,
    "TRACE /predictions/news_classification": METHOD,
    "HEAD /predictions/news_classification": METHOD,
    "POST /invocations?%zz=1": ABSENT,
    f"POST {PATH}/1.0/%0d%0aX-A:%20b": ABSENT,
    f"POST http://localhost{PATH}": OK,
    f"POST {PATH}/1.0/more/../segments": ABSENT,
    f"POST /%zz{PATH}": ABSENT,
    f"POST /{'a' * 59}": ABSENT,
    "POST /v1/models/news_classification:predict": ABSENT,
    "POST /v2/models/news_classification/infer": BAD,
    "POST /models/news_classification/invoke": ABSENT,
    "POST /news_classification/predict": ABSENT,
    "POST *": ABSENT,
    "POST ?": BAD,
    "POST #": BAD,
    "header: a value of 20 kB": OK,
    "header: 10,000 headers": {431},
    "header: expects nonsense": OK,
    "head: an unknown method": BAD,
    "form: data=%zz": OK,
    "form: data=goal%": OK,
    "form: %zz=goal": BAD,
    "form: =goal": BAD,
    "form: data=goal&=cup": BAD,
    "form: &&&": BAD,
    "multipart: an unknown charset": OK,
    "multipart: a part with form-data ": BAD,
    'multipart: a part with form-data; name="" ': BAD,
    'multipart: a part with form-data; name="data" text/plain; charset=no': OK,
    'multipart: a part with form-data; name="data"; filename*=x ': OK,
    "multipart: a part without a head": BAD,
    "multipart: an empty boundary": BAD,
}
"""Statuses of the native server where they are not those of TorchServe, by the shape's name."""


def get_statuses(shape: Shape, server: str) -> set[int]:
    """Return the statuses that a server may answer a shape with."""
    return NATIVE_STATUSES.get(shape.name, shape.statuses) if server == "native" else shape.statuses


@dataclass(frozen=True)
class Answer:
    """An answer: a status (`CLOSED` for none), headers by lower-case name, a body."""

    status: int
    headers: dict[str, str]
    body: bytes


def post(body: bytes, content_type: str | None = _JSON, *headers: str, path: str = PATH, method: str = "POST") -> bytes:
    """Return a well-formed request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += [] if content_type is None else [f"Content-Type: {content_type}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + body


def raw(head: str, body: bytes = b"") -> bytes:
    """Return a request with any head: one character is one byte, a line break is CR LF."""
    return head.replace("\n", "\r\n").encode("latin-1") + body


def _json(name: str, statuses: set[int], value: object) -> Shape:
    return Shape(f"JSON: {name}", statuses, lambda _: post(json.dumps(value).encode()))


def _body(name: str, statuses: set[int], body: bytes, content_type: str | None = _JSON, *headers: str) -> Shape:
    return Shape(name, statuses, lambda _: post(body, content_type, *headers))


def _path(method: str, path: str, statuses: set[int], body: bytes = b'{"text": "goal"}') -> Shape:
    return Shape(f"{method} {path[:60]}", statuses, lambda _: post(body, _JSON, path=path, method=method))


def _head(name: str, statuses: set[int], head: str, body: bytes = b"") -> Shape:
    return Shape(f"head: {name}", statuses, lambda _: raw(head, body))


def _header(name: str, statuses: set[int], *headers: str) -> Shape:
    return _body(f"header: {name}", statuses, b'{"text": "goal"}', _JSON, *headers)


def _part(disposition: str, content: bytes = b"goal", content_type: str = "") -> bytes:
    kind = f"Content-Type: {content_type}\r\n" if content_type else ""
    return f"--B\r\nContent-Disposition: {disposition}\r\n{kind}\r\n".encode() + content + b"\r\n"


def _multipart(
    name: str, statuses: set[int], body: bytes, content_type: str = "multipart/form-data; boundary=B"
) -> Shape:
    return _body(f"multipart: {name}", statuses, body, content_type)


def _random_bytes(rng: random.Random) -> bytes:
    kinds = [_JSON, _TEXT, _FORM, "multipart/form-data; boundary=B", None]
    return post(rng.randbytes(rng.randrange(1, 2000)), rng.choice(kinds[:2]))


def _random_text(rng: random.Random) -> bytes:
    characters = [chr(rng.choice([rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)])) for _ in range(80)]
    return post(json.dumps({"text": "goal " + "".join(characters)}).encode())


_BOMB = gzip.compress(b'{"text": "' + b"a" * 100_000_000 + b'"}', 6)
_FULL = b'{"text": "' + b"goal " * ((MAX_BODY_BYTES - 12) // 5) + b'"}'
_GOOD_HEAD = f"POST {PATH} HTTP/1.1\nHost: localhost\nContent-Type: {_TEXT}\n"

_DOCUMENTS: list[object] = [None, True, -1, 1e308, "goal", [], ["goal"], {}]
_TEXTS: list[object] = [None, False, -1, 0.5, [], ["goal"], {}, {"text": "goal"}]
_LISTS: list[object] = [None, -1, "goal", {}, [], [None], [-1], [[]], [{}]]
_ONE_PART = b'--B\r\nContent-Disposition: form-data; name="data"\r\n\r\ngoal\r\n--B--\r\n'
_CHUNK = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"

BODIES = [
    _body("JSON: an empty body", BAD, b""),
    *(_json(str(value), BAD, value) for value in _DOCUMENTS),
    *(_json(f"text is {value}", BAD, {"text": value}) for value in _TEXTS),
    *(_json(f"instances is {value}", BAD, {"instances": value}) for value in _LISTS),
    _json("nested lists", BAD, {"instances": [[["goal"]]]}),
    _json("an unknown key", BAD, {"text": "goal", "label": "World"}),
    _json("data beside text", BAD, {"data": "goal", "text": "goal"}),
    _json("1,000 items", OK, {"instances": ["goal"] * 1000}),
    _json("1,001 items", LARGE, {"instances": ["goal"] * 1001}),
    _json("100,000 items", LARGE, {"instances": ["goal"] * 100_000}),
    _json("100,000 nulls", LARGE, {"instances": [None] * 100_000}),
    _json("100,000 keys", BAD, {str(number): 0 for number in range(80_000)}),
    _body("JSON: 1 MiB", OK, _FULL),
    _body("JSON: more than 1 MiB", LARGE, _FULL + b" " * 100),
    _body("JSON: one word of 1 MB", OK, b'{"text": "' + b"g" * 1_000_000 + b'"}'),
    _body("JSON: 1 MB of white space", BAD, b'{"text": "' + b" " * 1_000_000 + b'"}'),
    _body("JSON: 1 MB of escapes", OK, b'{"text": "' + rb"\u0067" * 170_000 + b'"}'),
    _body("JSON: 1 MB of ampersands", OK, b'{"text": "goal ' + b"&amp;" * 200_000 + b'"}'),
    _body("JSON: 1 MB of emoji", OK, json.dumps({"text": "🏆" * 250_000}, ensure_ascii=False).encode()),
    _body("JSON: 300,000 combining marks", OK, ('{"text": "e' + "\u0301" * 300_000 + '"}').encode()),
    _body("JSON: nested lists, 500,000 deep", BAD, b"[" * 500_000),
    _body("JSON: nested objects, 100,000 deep", BAD, b'{"text":' * 100_000),
    _body("JSON: nested and closed", BAD, b'{"instances":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    _body("JSON: truncated", BAD, b'{"text": "goal'),
    _body("JSON: two documents", BAD, b'{"text": "goal"}{"text": "goal"}'),
    _body("JSON: NaN", BAD, b'{"text": NaN}'),
    _body("JSON: a number of 100,000 digits", BAD, b'{"text": -' + b"9" * 100_000 + b"}"),
    _body("JSON: bad UTF-8", BAD, b'{"text": "\xff\xfe"}'),
    _body("JSON: UTF-16", BAD, '{"text": "goal"}'.encode("utf-16")),
    _body("JSON: byte order mark", OK, b'\xef\xbb\xbf{"text": "goal"}'),
    _body("JSON: lone surrogates", OK | BAD, rb'{"text": "goal \ud800 \udfff"}'),
    _body("JSON: a surrogate encoded", BAD, b'{"text": "goal \xed\xa0\x80"}'),
    _json("NUL", OK, {"text": "goal \x00 cup"}),
    _json("NUL alone", BAD | OK, {"text": "\x00"}),
    _json("right to left", OK, {"text": "\u202egoal فاز الفريق"}),
    _json("emoji", OK, {"text": "👩‍👩‍👧‍👦🏴‍☠️ goal"}),
    _body("JSON: a repeated key", OK, b'{"text": 1, "text": "goal"}'),
    _body("text", OK, b"goal", _TEXT),
    _body("text: empty", BAD, b"", _TEXT),
    _body("text: NUL", OK, b"goal\x00", _TEXT),
    _body("text: 1 MiB", OK, b"goal " * (MAX_BODY_BYTES // 5), _TEXT),
    _body("text: bad UTF-8", BAD, b"goal \xff", _TEXT),
    _body("text: no content type", OK, b"goal", None),
    _body("gzip: a bomb", TYPE, _BOMB, _JSON, "Content-Encoding: gzip"),
    _body("gzip: a text", TYPE, gzip.compress(b"goal"), _TEXT, "Content-Encoding: gzip"),
    _body("gzip: announced only", TYPE, b"goal", _TEXT, "Content-Encoding: br"),
    _body("gzip: not announced", BAD, _BOMB, _JSON),
    *(
        _body(f"content type: {kind[:40]}", TYPE, b"goal", kind)
        for kind in (
            "application/xml", "image/png", "text/html", "nonsense", "/", "application/json; charset=utf-16",
            "text/plain; charset=latin1", "application/octet-stream", "a" * 5000, "\xe9\xff",
            "multipart/mixed; boundary=B",
        )
    ),
    Shape("random bytes", OK | BAD, _random_bytes),
    Shape("random text", OK, _random_text),
    _body("form", OK, b"data=goal", _FORM),
    _body("form: empty", BAD, b"", _FORM),
    _body("form: no value", BAD, b"data=", _FORM),
    _body("form: gzip", TYPE, gzip.compress(b"data=goal"), _FORM, "Content-Encoding: gzip"),
    _body("form: other names", BAD, b"a=1&b=2", _FORM),
    _body("form: a name twice", OK, b"data=goal&data=cup", _FORM),
    _body("form: 50,000 fields", BAD, b"&".join(b"f%d=1" % number for number in range(50_000)), _FORM),
    _body("form: bad UTF-8", OK | BAD, b"data=%ff%fe", _FORM),
    _body("form: NUL", OK, b"data=goal%00", _FORM),
    _body("form: 1 MB", OK, b"data=" + b"goal+" * 200_000, _FORM),
    _body("form: a field called body", BAD, b"body=goal", _FORM),
    _body("form: JSON", BAD, b'{"text": "goal"}', _FORM),
    _multipart("one part", OK, _ONE_PART),
    _multipart("a file", OK, _part('form-data; name="data"; filename="../../x"', b"goal", _TEXT) + b"--B--\r\n"),
    _multipart("5,000 parts", BAD, b"".join(_part(f'form-data; name="f{n}"') for n in range(5000)) + b"--B--\r\n"),
    _multipart("truncated", BAD, _part('form-data; name="data"')[:-8]),
    _multipart("another boundary", BAD, _ONE_PART, "multipart/form-data; boundary=C"),
    _multipart("no boundary", BAD, _ONE_PART, "multipart/form-data"),
    _multipart("an unknown charset", {403}, _ONE_PART, "multipart/form-data; boundary=B; charset=no"),
    _multipart("nothing", BAD, b"--B--\r\n"),
    _multipart("empty", BAD, b""),
]  # fmt: skip
"""Bodies that reach the handler, with a well-formed head and the right path."""

FRONTEND_FAULTS = [
    *(
        _body(f"form: {body.decode()}", {500}, body, _FORM)
        for body in (b"data=%zz", b"data=goal%", b"%zz=goal", b"=goal", b"data=goal&=cup", b"&&&")
    ),
    *(
        _multipart(f"a part with {disposition} {kind}", {500}, _part(disposition, b"goal", kind) + b"--B--\r\n")
        for disposition, kind in (
            ("form-data", ""), ('form-data; name=""', ""), ('form-data; name="data"', "text/plain; charset=no"),
            ('form-data; name="data"; filename*=x', ""),
        )
    ),
    _multipart("a part without a head", {500}, b"--B\r\n\r\ngoal\r\n--B--\r\n"),
    _multipart("an empty boundary", {500}, _ONE_PART, "multipart/form-data; boundary="),
    *(_path("POST", path, {500}) for path in ("*", "?", "#")),
]  # fmt: skip
"""All requests that TorchServe's frontend answers with a 500 before the model gets them, with any configuration.

Netty decodes forms and multipart bodies, and the frontend splits the path at its slashes. Errors of these become a 500.
"""

PATHS = [
    _path("POST", "/predictions/nothing", ABSENT),
    _path("POST", f"{PATH}/99", ABSENT),
    _path("POST", "/predictions", ABSENT),
    _path("GET", PATH, OK),
    _path("PUT", PATH, OK),
    _path("DELETE", PATH, OK),
    _path("TRACE", PATH, OK),
    _path("HEAD", PATH, OK),
    _path("GET", "/ping", OK),
    _path("POST", "/invocations?%zz=1", {403}),
    _path("POST", f"{PATH}/1.0/%0d%0aX-A:%20b", {403}),
    _path("POST", "http://localhost" + PATH, ABSENT),
    _path("OPTIONS", PATH, OK),
    _path("POST", f"{PATH}/1.0/more/../segments", OK),
    _path("POST", f"{PATH}?data=%zz", OK),
    _path("POST", f"/%zz{PATH}", {403}),
    _path("POST", f"/../../etc/passwd?x={'a' * 3000}", ABSENT | METHOD),
    _path("POST", f"/{'a' * 5000}", {400, 414}),
    _path("POST", "/explanations/news_classification", OK),
    _path("POST", "/v1/models/news_classification:predict", OK),
    _path("POST", "/v2/models/news_classification/infer", OK),
    _path("POST", "/models/news_classification/invoke", OK),
    _path("POST", "/news_classification/predict", OK),
    _path("POST", "/models?url=http://127.0.0.1:9/evil.mar", ABSENT | METHOD),
    _path("PUT", "/models/news_classification?min_worker=0", ABSENT | METHOD),
    _path("DELETE", "/models/news_classification", ABSENT | METHOD),
    _path("POST", "/workflows?url=http://127.0.0.1:9/evil.war", ABSENT | METHOD),
    _path("POST", "/wfpredict/x", ABSENT | METHOD),
    _path("GET", "/token?type=inference", ABSENT | METHOD),
    _path("GET", "/metrics", ABSENT | METHOD),
    _path("GET", "/", ABSENT | METHOD),
]

HEADS = [
    _header("a value of 7 kB", OK, f"X-A: {'a' * 7000}"),
    _header("a value of 20 kB", BAD, f"X-A: {'a' * 20_000}"),
    _header("1,000 headers", OK | BAD, *(f"X-{number}: 1" for number in range(500))),
    _header("10,000 headers", BAD, *(f"X-{number}: 1" for number in range(10_000))),
    _header("a NUL", OK | BAD, "X-A: a\x00b"),
    _header("bytes above 127", OK, "X-A: \xe9\xff\xfe"),
    _header("no colon", OK | BAD, "nonsense"),
    _header("no name", OK | BAD, ": a"),
    _header("a blank in the name", OK | BAD, "X A: a"),
    _header("folded", OK | BAD, "X-A: a\r\n b"),
    _header("names of TorchServe's", OK, "explain: True", "url_path: ../..", "ts_request_sequence_id: 1"),
    _header("a request id", OK, "X-Request-Id: ../../x"),
    _header("a length twice", BAD, "Content-Length: 3"),
    _header("an invalid Accept", OK, "Accept: ,;q=,*/*;;"),
    _header("expects 100-continue", OK, "Expect: 100-continue"),
    _header("expects nonsense", {417}, "Expect: nonsense"),
    _header("an upgrade", OK, "Connection: Upgrade", "Upgrade: h2c", "HTTP2-Settings: AAAA"),
    _header("an invalid token", OK, "Authorization: Bearer \xff"),
    _head("nonsense", {CLOSED, 400}, "nonsense\n\n"),
    _head("TLS", {CLOSED, 400}, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "\n\n"),
    _head("HTTP/9.9", OK | BAD | {505}, f"POST {PATH} HTTP/9.9\nContent-Type: {_TEXT}\nContent-Length: 4\n\n", b"goal"),
    _head("HTTP/1.0", OK, f"POST {PATH} HTTP/1.0\nContent-Type: {_TEXT}\nContent-Length: 4\n\n", b"goal"),
    _head("no Host", OK | BAD, f"POST {PATH} HTTP/1.1\nContent-Type: {_TEXT}\nContent-Length: 4\n\n", b"goal"),
    _head("a negative length", {CLOSED, 400}, f"{_GOOD_HEAD}Content-Length: -1\n\n", b"goal"),
    _head("an invalid length", {CLOSED, 400}, f"{_GOOD_HEAD}Content-Length: x\n\n", b"goal"),
    _head("a length of 2**63", {CLOSED, 400, 413}, f"{_GOOD_HEAD}Content-Length: {2**63}\n\n", b"goal"),
    _head("no length", BAD, f"{_GOOD_HEAD}\n"),
    _head("chunks", OK, f"{_GOOD_HEAD}Transfer-Encoding: chunked\n\n", b"4\r\ngoal\r\n0\r\n\r\n"),
    _head("a bad chunk", {CLOSED, 400}, f"{_GOOD_HEAD}Transfer-Encoding: chunked\n\n", b"zz\r\ngoal\r\n0\r\n\r\n"),
    _head(
        "chunks and a length", OK | BAD, f"{_GOOD_HEAD}Content-Length: 4\nTransfer-Encoding: chunked\n\n",
        b"4\r\ngoal\r\n0\r\n\r\n",
    ),
    _head("more chunks than 1 MiB", {413}, f"{_GOOD_HEAD}Transfer-Encoding: chunked\n\n", _CHUNK * 18 + b"0\r\n\r\n"),
    _head("an unknown method", OK, f"BREW {PATH} HTTP/1.1\nContent-Type: {_TEXT}\nContent-Length: 4\n\n", b"goal"),
]  # fmt: skip

_CUT = post(b'{"text": "goal team cup"}')
CLIENTS = [
    Shape("client: slow", OK, lambda _: post(b'{"text": "goal team cup"}'), parts=15),
    Shape("client: a body in single bytes", OK, lambda _: post(b"goal team", _TEXT), parts=120),
    Shape("client: ends in the head", {CLOSED, 400}, lambda _: _CUT[:60], cut=True),
    Shape("client: ends in the body", {CLOSED, 400}, lambda _: _CUT[:-10], cut=True),
    Shape("client: disconnects in the body", {CLOSED}, lambda _: _CUT[:-10], hangs_up=True),
    Shape("client: disconnects before the answer", {CLOSED}, lambda _: _CUT, hangs_up=True),
    Shape(
        "client: disconnects before a long answer",
        {CLOSED},
        lambda _: post(json.dumps({"instances": ["goal team cup"] * 500}).encode()),
        hangs_up=True,
    ),
]

SHAPES = [*BODIES, *PATHS, *HEADS, *CLIENTS, *FRONTEND_FAULTS]


async def send(port: int, shape: Shape, rng: random.Random) -> Answer:
    """Send a request of a shape over a new connection, and return the answer.

    Raises:
        TimeoutError: If there is no answer for a minute.
    """
    data = shape.make(rng)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=64 * MAX_BODY_BYTES)
    try:
        size = -(-len(data) // shape.parts)
        # The server may answer and close before it has read the whole request.
        with contextlib.suppress(ConnectionError):
            for start in range(0, len(data), size):
                writer.write(data[start : start + size])
                await writer.drain()
                if shape.parts > 1:
                    await asyncio.sleep(_SLOW_S)
            if shape.cut:
                writer.write_eof()
        if shape.hangs_up:
            return Answer(CLOSED, {}, b"")
        async with asyncio.timeout(_TIMEOUT_S):
            return await read(reader, data.startswith(b"HEAD "))
    finally:
        writer.transport.abort()


async def read(reader: asyncio.StreamReader, head_only: bool = False) -> Answer:
    """Read an answer; skip answers with a status below 200."""
    while True:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except (asyncio.IncompleteReadError, ConnectionError):
            return Answer(CLOSED, {}, b"")
        first, *lines = head.split("\r\n")[:-2]
        status = int(first.split()[1])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if status < 200:
            continue
        if head_only:
            return Answer(status, headers, b"")
        try:
            return Answer(status, headers, await reader.readexactly(int(headers.get("content-length", 0))))
        except (asyncio.IncompleteReadError, ConnectionError):
            return Answer(CLOSED, headers, b"")
