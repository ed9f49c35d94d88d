"""Every form of a request is answered, and every fault of one is named."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from newsbert.data.text import NewsItem
from newsbert.serving.handler import Handler
from newsbert.serving.requests import RequestError, parse_request
from tests.support.handler import FORM, ITEM, JSON, TEXT, make_request, send_one
from tests.support.tiny_model import LABELS


@pytest.mark.parametrize(
    ("parameters", "headers", "item"),
    [
        pytest.param({"body": b"stocks fall"}, TEXT, "stocks fall", id="text"),
        pytest.param({"body": b"stocks fall"}, {}, "stocks fall", id="no content type is text"),
        pytest.param({"body": b"stocks fall"}, {"content-type": ""}, "stocks fall", id="an empty content type is text"),
        pytest.param({"body": bytearray(b"stocks fall")}, TEXT, "stocks fall", id="text as bytearray"),
        pytest.param({"body": "stocks fall"}, TEXT, "stocks fall", id="text that the server decoded"),
        pytest.param({"body": "élections à Łódź 🏆".encode()}, TEXT, "élections à Łódź 🏆", id="UTF-8"),
        pytest.param({"body": b"\xef\xbb\xbfgoal"}, TEXT, "goal", id="a byte order mark"),
        pytest.param(
            {"body": b"goal"}, {"Content-Type": "Text/Plain; Charset=UTF-8"}, "goal", id="charset and case"
        ),
        pytest.param(
            {"body": b"goal"},
            {"content-type": 'text/plain; charset="utf-8"; format=flowed'},
            "goal",
            id="charset among other parameters",
        ),
        pytest.param({"body": b"goal"}, {"content-type": "text/plain;charset=us-ascii"}, "goal", id="ASCII is UTF-8"),
        pytest.param({"data": b"vote & treaty"}, FORM, "vote & treaty", id="form data"),
        pytest.param({"data": bytearray(b"vote")}, {"content-type": "multipart/form-data; boundary=x"}, "vote",
                     id="multipart data"),
        pytest.param({"data": "vote"}, {}, "vote", id="data that the server decoded"),
        pytest.param({"title": b"Cup final", "text": b"goal for the team"}, FORM, ITEM, id="title and text of a form"),
        pytest.param({"text": b"goal"}, FORM, "goal", id="text of a form"),
        pytest.param({"title": b"Cup", "description": b"goal"}, FORM, {"title": "Cup", "text": "goal"},
                     id="description of a form"),
        pytest.param(*make_request({"text": "bank profit"}), "bank profit", id="JSON text"),
        pytest.param(*make_request(ITEM), ITEM, id="JSON title and text"),
        pytest.param(*make_request({"title": "Cup final"}), "Cup final", id="JSON title"),
        pytest.param(*make_request({"data": "bank profit"}), "bank profit", id="JSON data"),
        pytest.param(*make_request({"data": ITEM}), ITEM, id="JSON data with an object"),
        pytest.param(*make_request({"text": "lone \ud800 half"}), "lone \ufffd half", id="a lone surrogate in JSON"),
        pytest.param(*make_request({"text": "\ud83c\udfc6 goal"}), "🏆 goal", id="a pair of surrogates in JSON"),
        pytest.param({"body": {"text": "goal"}}, JSON, "goal", id="JSON that the server decoded"),
        pytest.param({"body": '{"text": "goal"}'}, JSON, "goal", id="JSON as text"),
        pytest.param({"body": bytearray(b'\xef\xbb\xbf {"text": "goal"}\n')}, JSON, "goal", id="JSON with a mark"),
        pytest.param({"body": b'{"text": "goal"}'}, {"content-type": "application/json; charset=utf-8"}, "goal",
                     id="JSON with charset"),
        pytest.param({"body": b'{"text": "goal"}'}, {"content-type": "application/vnd.news+json"}, "goal",
                     id="a kind of JSON"),
    ],
)  # fmt: skip
def test_every_form_of_a_request_is_answered(
    handler: Handler,
    expect: Callable[[NewsItem], Any],
    parameters: Mapping[str, Any],
    headers: Mapping[str, str],
    item: NewsItem,
) -> None:
    answer = send_one(handler, parameters, headers)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == expect(item)
    assert list(answer.json["probabilities"]) == list(LABELS)


@pytest.mark.parametrize(
    ("parameters", "headers", "message"),
    [
        pytest.param({"body": b""}, TEXT, "empty", id="no text"),
        pytest.param({"body": b" \n\t\x00 "}, {}, "empty", id="blanks"),
        pytest.param({"body": b"<b></b>"}, TEXT, "empty", id="nothing but tags"),
        pytest.param({"data": b""}, FORM, "empty", id="empty data"),
        pytest.param({"title": b" ", "text": b""}, FORM, "empty", id="empty title and text"),
        pytest.param({}, FORM, "is empty", id="an empty form"),
        pytest.param({"txt": b"goal", "lang": b"en"}, FORM, "lang, txt", id="other fields"),
        pytest.param({"data": b"goal", "text": b"goal"}, FORM, "data, text", id="too many fields"),
        pytest.param({"title": b"a", "text": b"b", "description": b"c"}, FORM, "not both", id="two texts"),
        pytest.param({"body": b"caf\xe9 closes"}, TEXT, "UTF-8 (byte 3)", id="Latin-1 text"),
        pytest.param({"body": b"goal"}, FORM, "the form holds body; send data=TEXT", id="a wrong field called body"),
        pytest.param({"body": b"--B--"}, {"content-type": "multipart/form-data"}, "needs a boundary", id="no boundary"),
        pytest.param({"data": b"goal", "body": b"x"}, FORM, "the form holds body, data", id="a field too many"),
        pytest.param({"data": b"\xff"}, FORM, "UTF-8 (byte 0)", id="bad UTF-8 in a form"),
        pytest.param({"body": b'{"text": "\xe9"}'}, JSON, "UTF-8 (byte 10)", id="bad UTF-8 in JSON"),
        pytest.param({"body": b'{"text": '}, JSON, "not valid JSON", id="broken JSON"),
        pytest.param({"body": b""}, JSON, "not valid JSON", id="no JSON"),
        pytest.param({"body": b"Stocks fall"}, JSON, "not valid JSON", id="text sent as JSON"),
        pytest.param({"body": b"[" * 100_000}, JSON, "nested too deep", id="deep nesting"),
        pytest.param({"body": b'{"text": ' + b"[" * 500 + b"]" * 500 + b"}"}, JSON, "list", id="nested lists"),
        pytest.param({"body": b'{"data": ' + b"9" * 5000 + b"}"}, JSON, "JSON", id="a number of 5000 digits"),
        pytest.param(*make_request([]), "got list", id="a bare list"),
        pytest.param(*make_request("goal"), "got str", id="a bare string"),
        pytest.param(*make_request(None), "got NoneType", id="null"),
        pytest.param(*make_request({}), "'text', 'data' or 'instances'", id="an empty object"),
        pytest.param(*make_request({"texts": "goal"}), "'text', 'data' or 'instances'", id="a wrong key"),
        pytest.param(*make_request({"text": "goal", "lang": "en"}), "'lang'", id="a key too many"),
        pytest.param(*make_request({"text": "goal", "\ud800": 1}), "\\ud800", id="a lone surrogate as key"),
        pytest.param(*make_request({"data": "goal", "text": "goal"}), "data, text", id="two forms at once"),
        pytest.param(*make_request({"instances": "goal"}), "must be a list", id="instances without a list"),
        pytest.param(*make_request({"data": []}), "the list is empty", id="an empty list"),
        pytest.param(*make_request({"instances": []}), "the list is empty", id="no instances"),
        pytest.param(*make_request({"text": None}), "null", id="text is null"),
        pytest.param(*make_request({"text": 5}), "a number", id="text is a number"),
        pytest.param(*make_request({"text": True}), "a boolean", id="text is a boolean"),
        pytest.param(*make_request({"text": ["goal"]}), "a list", id="text is a list"),
        pytest.param(*make_request({"title": {"a": 1}, "text": "goal"}), "an object", id="title is an object"),
        pytest.param(*make_request({"data": None}), "null", id="data is null"),
        pytest.param(*make_request({"data": {}}), "empty object", id="data is an empty object"),
        pytest.param(*make_request({"data": {"body": "goal"}}), "'body'", id="data is another object"),
        pytest.param({"body": None}, JSON, "got NoneType", id="null that the server decoded"),
        pytest.param({"body": 5}, JSON, "got int", id="a number that the server decoded"),
        pytest.param({"body": ["goal"]}, JSON, "got list", id="a list that the server decoded"),
        pytest.param({"data": {"text": "goal"}}, {}, "got dict", id="a part that the server decoded"),
        pytest.param({"body": 10**12}, TEXT, "got int", id="a number as text"),
    ],
)
def test_a_bad_request_is_a_400_with_the_reason(
    handler: Handler, parameters: Mapping[str, Any], headers: Mapping[str, str], message: str
) -> None:
    answer = send_one(handler, parameters, headers)
    assert answer.status == 400
    assert message in answer.message


@pytest.mark.parametrize(
    ("value", "index", "message"),
    [
        (["goal", "", "cup"], 1, "empty"),
        ([5, "goal"], 0, "a number"),
        (["goal", ["cup"]], 1, "a list"),
        (["goal", None], 1, "null"),
        ([ITEM, {"title": "x", "text": False}], 1, "'text' must be a string, got a boolean"),
        (["goal"] * 30 + [{"headline": "x"}], 30, "'headline'"),
    ],
)
@pytest.mark.parametrize("key", ["data", "instances"])
def test_a_bad_item_is_named_by_its_index(
    handler: Handler, key: str, value: list[Any], index: int, message: str
) -> None:
    answer = send_one(handler, *make_request({key: value}))
    assert answer.status == 400
    assert answer.message.startswith(f"item {index}: ")
    assert message in answer.message


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain; charset=latin-1",
        'application/json; charset="utf-16"',
        "text/plain; format=flowed; charset=iso-8859-1",
        "image/png",
        "application/octet-stream",
        "nonsense",
    ],
)
def test_other_media_types_are_a_415(handler: Handler, content_type: str) -> None:
    answer = send_one(handler, {"body": b'{"text": "goal"}'}, {"content-type": content_type})
    assert answer.status == 415
    named = content_type.rpartition("charset=")[2].strip('"')
    assert repr(named) in answer.message


@pytest.mark.parametrize("request_", [{"body": b"goal"}, {"data": b"goal"}], ids=["body", "form"])
@pytest.mark.parametrize("encoding", ["gzip", "BR", "deflate, gzip", "nonsense"])
def test_a_compressed_body_is_a_415(handler: Handler, request_: dict[str, bytes], encoding: str) -> None:
    answer = send_one(handler, request_, {"content-encoding": encoding})
    assert answer.status == 415
    assert repr(encoding.lower()) in answer.message
    assert send_one(handler, request_, {"content-encoding": "identity"}).status == 200


def test_parsing_returns_the_items_and_whether_they_are_a_list() -> None:
    assert parse_request({"body": b"goal"}, {}) == (["goal"], False)
    assert parse_request({"body": b'{"data": ["goal", 5]}'}, JSON) == (["goal", 5], True)
    assert parse_request({"body": b'{"data": "goal"}'}, JSON) == (["goal"], False)
    assert parse_request({"title": b"a", "text": b"b"}, FORM) == ([{"title": "a", "text": "b"}], False)
    with pytest.raises(RequestError) as caught:
        parse_request({"body": b"goal"}, {"content-type": "text/html"})
    assert caught.value.status == 415
