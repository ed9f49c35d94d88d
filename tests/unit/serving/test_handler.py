"""What a served model answers: every form of a request, and what is wrong with the others, each for itself."""

import importlib.util
import json
import sys
import urllib.parse
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import newsbert
from newsbert.bundle.bundle import RUNTIME_FILES, Bundle
from newsbert.core.settings import ServeSettings
from newsbert.data.text import NewsItem
from newsbert.errors import ModelError
from newsbert.inference.model import Model
from newsbert.serving import archive, protocol
from newsbert.serving.handler import MAX_EXPLAINED, MAX_ITEMS, Handler
from newsbert.serving.heartbeat import Heartbeat
from newsbert.serving.protocol import MODEL_HEADER
from newsbert.serving.requests import RequestError, parse_request
from tests.support.tiny_model import LABELS, REVIEW_THRESHOLD

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # TorchServe leaves the file with its version open
    from ts.context import Context, RequestProcessor  # type: ignore[import-untyped]
    from ts.service import Service  # type: ignore[import-untyped]

JSON = {"content-type": "application/json"}
TEXT = {"content-type": "text/plain"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True)
class Answer:
    """What went back for one request."""

    status: int
    phrase: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """The message of an answer that says what is wrong."""
        assert self.headers["content-type"] == "application/json"
        assert set(self.json) == {"code", "type", "message"}
        assert self.json["code"] == self.status
        assert self.phrase
        return str(self.json["message"])


Request = tuple[Mapping[str, Any], Mapping[str, Any]]
"""Parameters and headers, as TorchServe hands them over."""


def _ask(handler: Handler, *requests: Request) -> list[Answer]:
    """Send a batch through the handler as TorchServe's worker does."""
    context = Context(protocol.SERVED_NAME, "", {}, len(requests), None, "0.12.0")
    context.request_processor = [RequestProcessor(dict(headers)) for _, headers in requests]
    bodies = handler.handle([parameters for parameters, _ in requests], context)
    assert len(bodies) == len(requests)
    answers = []
    for index, body in enumerate(bodies):
        status, phrase = context.get_response_status(index)
        answers.append(Answer(status, phrase, context.get_response_headers(index), body))
    return answers


def _explained(handler: Handler, *requests: Request) -> list[Answer]:
    """Send a batch again and again, until all of its explanations are complete."""
    while True:
        answers = _ask(handler, *requests)
        if not any(answer.status == 503 for answer in answers):
            return answers
        assert all(answer.headers["Retry-After"] == "1" for answer in answers if answer.status == 503)


def _one(handler: Handler, parameters: Mapping[str, Any], headers: Mapping[str, Any]) -> Answer:
    (answer,) = _ask(handler, (parameters, headers))
    return answer


def _json(value: Any, **headers: str) -> Request:
    return {"body": json.dumps(value).encode()}, {**JSON, **headers}


@pytest.fixture(scope="module")
def handler(trained: tuple[newsbert.TrainResult, str]) -> Handler:
    return Handler(trained[0].bundle, "TinyModel/1")


@pytest.fixture(scope="module")
def expect(trained: tuple[newsbert.TrainResult, str]) -> Callable[[NewsItem], Any]:
    """The answer that PyTorch gives for an item, to compare with one of the handler's."""
    model = Model.from_directory(trained[0].bundle, runtime="torch")

    def expected(item: NewsItem) -> dict[str, Any]:
        (prediction,) = model.predict([item])
        return {
            "label": prediction.label,
            "score": pytest.approx(prediction.score, abs=1e-3),
            "review": prediction.review,
            "probabilities": pytest.approx(prediction.probabilities, abs=1e-3),
        }

    return expected


_ITEM = {"title": "Cup final", "text": "goal for the team"}


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
        pytest.param({"title": b"Cup final", "text": b"goal for the team"}, FORM, _ITEM, id="title and text of a form"),
        pytest.param({"text": b"goal"}, FORM, "goal", id="text of a form"),
        pytest.param({"title": b"Cup", "description": b"goal"}, FORM, {"title": "Cup", "text": "goal"},
                     id="description of a form"),
        pytest.param(*_json({"text": "bank profit"}), "bank profit", id="JSON text"),
        pytest.param(*_json(_ITEM), _ITEM, id="JSON title and text"),
        pytest.param(*_json({"title": "Cup final"}), "Cup final", id="JSON title"),
        pytest.param(*_json({"data": "bank profit"}), "bank profit", id="JSON data"),
        pytest.param(*_json({"data": _ITEM}), _ITEM, id="JSON data with an object"),
        pytest.param(*_json({"text": "lone \ud800 half"}), "lone \ufffd half", id="a lone surrogate in JSON"),
        pytest.param(*_json({"text": "\ud83c\udfc6 goal"}), "🏆 goal", id="a pair of surrogates in JSON"),
        pytest.param({"body": {"text": "goal"}}, JSON, "goal", id="JSON that the server decoded"),
        pytest.param({"body": '{"text": "goal"}'}, JSON, "goal", id="JSON as text"),
        pytest.param({"body": bytearray(b'\xef\xbb\xbf {"text": "goal"}\n')}, JSON, "goal", id="JSON with a mark"),
        pytest.param({"body": b'{"text": "goal"}'}, {"content-type": "application/json; charset=utf-8"}, "goal",
                     id="JSON with charset"),
        pytest.param({"body": b'{"text": "goal"}'}, {"content-type": "application/vnd.news+json"}, "goal",
                     id="a kind of JSON"),
    ],
)  # fmt: skip
def test_each_form_of_a_request_is_answered(
    handler: Handler,
    expect: Callable[[NewsItem], Any],
    parameters: Mapping[str, Any],
    headers: Mapping[str, str],
    item: NewsItem,
) -> None:
    answer = _one(handler, parameters, headers)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == expect(item)
    assert list(answer.json["probabilities"]) == list(LABELS)


@pytest.mark.parametrize("key", ["data", "instances"])
@pytest.mark.parametrize("items", [["goal"], ["goal", _ITEM, "bank profit"], [{"text": "x"}] * 40])
def test_a_list_is_answered_with_a_list_in_its_order(
    handler: Handler, expect: Callable[[NewsItem], Any], key: str, items: list[NewsItem]
) -> None:
    answer = _one(handler, *_json({key: items}))
    assert answer.status == 200
    assert answer.json == [expect(item) for item in items]


def test_answers_say_whether_a_person_should_see_them(bundle: Bundle, handler: Handler) -> None:
    texts = ["goal team cup coach", "goal stocks", "x", "bank vote", "stocks market profit bank"]
    scores = [each["score"] for each in _one(handler, *_json({"data": texts})).json]
    for below in (None, 0.0, sorted(scores)[2], 1.0):  # the model's own, none, two of five, all
        asked = _one(Handler(bundle.path, review_threshold=below), *_json({"data": texts}))
        compared = REVIEW_THRESHOLD if below is None else below
        expected = [score < compared or compared == 1 for score in scores]
        assert [each["review"] for each in asked.json] == expected
        assert sum(expected) == {None: sum(expected), 0.0: 0, 1.0: 5}.get(below, 2)


def test_answers_are_explained_where_that_is_asked_for(handler: Handler) -> None:
    item = {"title": "Cup final", "text": "goal"}
    plain = _one(handler, *_json(item)).json
    wanted = {**item, "explain": True}
    explained, other, unwanted, listed, by_path, text, bare = _explained(
        handler,
        _json(wanted),
        _json({**wanted, "label": LABELS[1]}),
        _json({**item, "explain": False, "label": None}),
        _json({"instances": ["goal", wanted]}),
        _json(item, explain="True"),  # as TorchServe tells of /explanations
        ({"body": b"Cup final goal"}, {**TEXT, "explain": "True"}),
        _json(wanted, accept="text/plain"),
    )
    answer = explained.json
    explanation = answer.pop("explanation")
    assert answer == {**plain, "score": pytest.approx(plain["score"], abs=1e-3), "probabilities": pytest.approx(
        plain["probabilities"], abs=1e-3
    )}  # fmt: skip
    assert set(explanation) == {"label", "method", "text", "words", "gap"}
    assert (explanation["label"], explanation["text"]) == (plain["label"], "Cup final goal")
    assert [each["text"] for each in explanation["words"]] == ["Cup", "final", "goal"]
    assert other.json["explanation"]["label"] == LABELS[1]
    assert "explanation" not in unwanted.json
    assert ["explanation" in each for each in listed.json] == [False, True]
    assert by_path.json["explanation"]["words"] == text.json["explanation"]["words"] == explanation["words"]
    assert bare.body.decode() == plain["label"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"explain": "yes"}, "'explain' must be true or false"),
        ({"explain": None}, "'explain' must be true or false"),
        ({"label": LABELS[0]}, "'label' goes with \"explain\": true"),
        ({"explain": True, "label": "Weather"}, "there is no label 'Weather': "),
        ({"explain": True, "label": [1]}, "there is no label [1]: "),
    ],
)
def test_what_cannot_be_explained_is_told(handler: Handler, more: dict[str, Any], said: str) -> None:
    answer = _one(handler, *_json({"text": "goal", **more}))
    assert answer.status == 400
    assert answer.message.startswith(said)


def test_as_many_answers_are_explained_as_are_allowed_and_no_more(handler: Handler) -> None:
    wanted = {"text": "goal", "explain": True}
    (answer,) = _explained(handler, _json({"instances": [wanted] * MAX_EXPLAINED}))
    assert len(answer.json) == MAX_EXPLAINED
    refused = _one(handler, *_json({"instances": [wanted] * (MAX_EXPLAINED + 1)}))
    assert (refused.status, refused.message[:28]) == (413, "11 explanations in one reque")


def test_as_many_items_are_answered_as_are_allowed_and_no_more(handler: Handler) -> None:
    allowed, refused = _ask(handler, _json({"data": ["goal"] * MAX_ITEMS}), _json({"data": ["goal"] * (MAX_ITEMS + 1)}))
    assert (allowed.status, len(allowed.json)) == (200, MAX_ITEMS)
    assert refused.status == 413
    assert str(MAX_ITEMS + 1) in refused.message
    assert str(MAX_ITEMS) in refused.message


@pytest.mark.parametrize("accept", ["text/plain", "text/plain; charset=utf-8", "Text/Plain, application/json;q=0.5"])
def test_the_bare_label_is_answered_where_text_is_asked_for(
    handler: Handler, expect: Callable[[NewsItem], Any], accept: str
) -> None:
    labels = [expect(text)["label"] for text in ("stocks market profit bank", "goal team cup coach", "vote")]
    one, many = _ask(
        handler,
        ({"body": b"stocks market profit bank"}, {**TEXT, "Accept": accept}),
        _json({"data": ["goal team cup coach", "vote"]}, accept=accept),
    )
    assert (one.status, one.body.decode()) == (200, labels[0])
    assert many.body.decode() == "\n".join(labels[1:])
    assert one.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("accept", ["*/*", "", "application/json", "application/json, text/plain", "text/html"])
def test_json_is_answered_otherwise(handler: Handler, accept: str) -> None:
    answer = _one(handler, {"body": b"goal"}, {"accept": accept})
    assert answer.json["label"] in LABELS


def test_a_bad_request_is_told_in_json_also_where_text_is_asked_for(handler: Handler) -> None:
    answer = _one(handler, {"body": b""}, {**TEXT, "accept": "text/plain"})
    assert (answer.status, answer.message) == (400, "the text is empty")


@pytest.mark.parametrize(
    "name",
    [
        "BertModel/7",
        "BertModel@champion",
        "run 0123456789abcdef",
        "Modèle d'été/2",
        "新聞/1",
        "100%/3",
        "a\r\nEvil: 1",
        "",
    ],
)
def test_every_answer_says_who_gave_it(trained: tuple[newsbert.TrainResult, str], name: str) -> None:
    handler = Handler(trained[0].bundle, name)
    for answer in _ask(handler, ({"body": b"goal"}, TEXT), ({"body": b""}, TEXT), ({}, {})):
        value = answer.headers[MODEL_HEADER]
        assert urllib.parse.unquote(value) == name
        assert value.isascii()
        assert value.isprintable()
    assert MODEL_HEADER == "X-Newsbert-Model"


def test_a_plain_name_stands_in_the_header_as_it_is(handler: Handler) -> None:
    assert _one(handler, {"body": b"goal"}, TEXT).headers["X-Newsbert-Model"] == "TinyModel/1"


@pytest.mark.parametrize(
    ("parameters", "headers", "said"),
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
        pytest.param(*_json([]), "got list", id="a bare list"),
        pytest.param(*_json("goal"), "got str", id="a bare string"),
        pytest.param(*_json(None), "got NoneType", id="null"),
        pytest.param(*_json({}), "'text', 'data' or 'instances'", id="an empty object"),
        pytest.param(*_json({"texts": "goal"}), "'text', 'data' or 'instances'", id="a wrong key"),
        pytest.param(*_json({"text": "goal", "lang": "en"}), "'lang'", id="a key too many"),
        pytest.param(*_json({"text": "goal", "\ud800": 1}), "\\ud800", id="a lone surrogate as key"),
        pytest.param(*_json({"data": "goal", "text": "goal"}), "data, text", id="two forms at once"),
        pytest.param(*_json({"instances": "goal"}), "must be a list", id="instances without a list"),
        pytest.param(*_json({"data": []}), "the list is empty", id="an empty list"),
        pytest.param(*_json({"instances": []}), "the list is empty", id="no instances"),
        pytest.param(*_json({"text": None}), "null", id="text is null"),
        pytest.param(*_json({"text": 5}), "a number", id="text is a number"),
        pytest.param(*_json({"text": True}), "a boolean", id="text is a boolean"),
        pytest.param(*_json({"text": ["goal"]}), "a list", id="text is a list"),
        pytest.param(*_json({"title": {"a": 1}, "text": "goal"}), "an object", id="title is an object"),
        pytest.param(*_json({"data": None}), "null", id="data is null"),
        pytest.param(*_json({"data": {}}), "empty object", id="data is an empty object"),
        pytest.param(*_json({"data": {"body": "goal"}}), "'body'", id="data is another object"),
        pytest.param({"body": None}, JSON, "got NoneType", id="null that the server decoded"),
        pytest.param({"body": 5}, JSON, "got int", id="a number that the server decoded"),
        pytest.param({"body": ["goal"]}, JSON, "got list", id="a list that the server decoded"),
        pytest.param({"data": {"text": "goal"}}, {}, "got dict", id="a part that the server decoded"),
        pytest.param({"body": 10**12}, TEXT, "got int", id="a number as text"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(
    handler: Handler, parameters: Mapping[str, Any], headers: Mapping[str, str], said: str
) -> None:
    answer = _one(handler, parameters, headers)
    assert answer.status == 400
    assert said in answer.message


@pytest.mark.parametrize(
    ("value", "index", "said"),
    [
        (["goal", "", "cup"], 1, "empty"),
        ([5, "goal"], 0, "a number"),
        (["goal", ["cup"]], 1, "a list"),
        (["goal", None], 1, "null"),
        ([_ITEM, {"title": "x", "text": False}], 1, "'text' must be a string, got a boolean"),
        (["goal"] * 30 + [{"headline": "x"}], 30, "'headline'"),
    ],
)
@pytest.mark.parametrize("key", ["data", "instances"])
def test_a_bad_item_is_named_by_its_index(handler: Handler, key: str, value: list[Any], index: int, said: str) -> None:
    answer = _one(handler, *_json({key: value}))
    assert answer.status == 400
    assert answer.message.startswith(f"item {index}: ")
    assert said in answer.message


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
def test_what_is_not_read_is_an_unsupported_media_type(handler: Handler, content_type: str) -> None:
    answer = _one(handler, {"body": b'{"text": "goal"}'}, {"content-type": content_type})
    assert answer.status == 415
    named = content_type.rpartition("charset=")[2].strip('"')
    assert repr(named) in answer.message


@pytest.mark.parametrize("request_", [{"body": b"goal"}, {"data": b"goal"}], ids=["body", "form"])
@pytest.mark.parametrize("encoding", ["gzip", "BR", "deflate, gzip", "nonsense"])
def test_an_encoded_body_is_not_unpacked_but_refused(
    handler: Handler, request_: dict[str, bytes], encoding: str
) -> None:
    answer = _one(handler, request_, {"content-encoding": encoding})
    assert answer.status == 415
    assert repr(encoding.lower()) in answer.message
    assert _one(handler, request_, {"content-encoding": "identity"}).status == 200


def test_a_bad_request_is_alone_with_its_fault(handler: Handler, expect: Callable[[NewsItem], Any]) -> None:
    answers = _ask(
        handler,
        ({"body": b"goal"}, TEXT),
        ({"body": b"\xff"}, TEXT),
        _json({"data": ["bank profit", "vote"]}),
        _json({"data": ["bank profit", 7]}),
        ({"body": b"x"}, {"content-type": "image/png"}),
        _json({"data": ["x"] * (MAX_ITEMS + 1)}),
        ({"data": b"treaty"}, FORM),
    )
    assert [answer.status for answer in answers] == [200, 400, 200, 400, 415, 413, 200]
    assert answers[0].json == expect("goal")
    assert answers[2].json == [expect("bank profit"), expect("vote")]
    assert answers[6].json == expect("treaty")


_NAMES = st.sampled_from(["body", "data", "text", "title", "description", "instances"]) | st.text(max_size=5)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(alphabet=st.characters(), max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=8,
)
_BODIES = st.one_of(
    st.binary(max_size=30),
    st.binary(max_size=30).map(bytearray),
    _VALUES.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from(["data", "instances", "text", "title"]), _VALUES, min_size=1, max_size=2).map(
        lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    ),
    _VALUES,  # as a server that decodes would hand it over
)
_HEADERS = st.dictionaries(
    st.sampled_from(["content-type", "Content-Type", "accept", "Accept", "body", "x-other"]),
    st.one_of(
        st.sampled_from(
            [
                "application/json",
                "text/plain",
                "application/json; charset=utf-8",
                "text/plain; charset=x",
                "a/b",
                ";",
                "=",
            ]
        ),
        st.text(max_size=10),
        st.just({"content-type": "text/plain"}),  # TorchServe notes a parameter's headers under its name
    ),
    max_size=3,
)
_GARBAGE = st.tuples(
    st.one_of(_BODIES.map(lambda body: {"body": body}), st.dictionaries(_NAMES, _BODIES, max_size=3)), _HEADERS
)
_GOOD: list[Request] = [
    ({"body": b"stocks fall as bank profit rises"}, TEXT),
    ({"data": "goal für das Team".encode()}, FORM),
    _json(_ITEM),
    _json({"instances": ["vote", {"title": "border"}, "coach " * 100]}),
    ({"body": b"minister signs treaty"}, {"accept": "text/plain"}),
]


@settings(max_examples=150, deadline=None)
@given(
    garbage=st.lists(_GARBAGE, min_size=1, max_size=4),
    good=st.lists(st.sampled_from(_GOOD), max_size=4),
    data=st.data(),
)
def test_whatever_else_is_in_a_batch_good_requests_are_answered_as_if_alone(
    handler: Handler, garbage: list[Request], good: list[Request], data: st.DataObject
) -> None:
    batch = data.draw(st.permutations([*((request, False) for request in garbage), *((each, True) for each in good)]))
    for answer, (request, is_good) in zip(_ask(handler, *(request for request, _ in batch)), batch, strict=True):
        assert answer.headers[MODEL_HEADER] == "TinyModel/1"
        if is_good:
            alone = _one(handler, *request)
            assert answer.status == alone.status == 200
            assert answer.headers == alone.headers
            if "accept" in request[1]:
                assert answer.body == alone.body
            else:
                _assert_same(answer.json, alone.json)
        elif answer.status != 200:
            assert 400 <= answer.status < 500
            assert answer.message


def _assert_same(left: Any, right: Any) -> None:
    lefts, rights = (value if isinstance(value, list) else [value] for value in (left, right))
    assert len(lefts) == len(rights)
    for one, other in zip(lefts, rights, strict=True):
        assert one["label"] == other["label"]
        assert one["review"] == other["review"]
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-3)


def test_a_request_is_parsed_into_its_items_and_whether_they_came_as_a_list() -> None:
    assert parse_request({"body": b"goal"}, {}) == (["goal"], False)
    assert parse_request({"body": b'{"data": ["goal", 5]}'}, JSON) == (["goal", 5], True)
    assert parse_request({"body": b'{"data": "goal"}'}, JSON) == (["goal"], False)
    assert parse_request({"title": b"a", "text": b"b"}, FORM) == ([{"title": "a", "text": "b"}], False)
    with pytest.raises(RequestError) as caught:
        parse_request({"body": b"goal"}, {"content-type": "text/html"})
    assert caught.value.status == 415


def test_an_altered_archive_is_not_served(trained: tuple[newsbert.TrainResult, str], tmp_path: Path) -> None:
    for name in RUNTIME_FILES["onnxruntime"]:
        (tmp_path / name).write_bytes((trained[0].bundle / name).read_bytes())
    Handler(tmp_path)
    with (tmp_path / "tokenizer.json").open("a") as stream:
        stream.write(" ")
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        Handler(tmp_path)


@pytest.mark.parametrize(
    ("runtime", "in_archive", "given", "review"),
    [
        ("onnxruntime", None, "", None),
        ("torch", None, "", None),
        ("onnxruntime", 1.0, "", True),
        ("onnxruntime", 1.0, "0", False),
        ("onnxruntime", None, "1", True),
    ],
)
def test_torchserve_loads_an_archives_own_handler_and_configuration(
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    expect: Callable[[NewsItem], Any],
    runtime: str,
    in_archive: float | None,
    given: str,
    review: bool | None,
) -> None:
    monkeypatch.setenv("NEWSBERT_SERVE_REVIEW_THRESHOLD", given)
    settings = ServeSettings(workers=2, runtime=runtime, review_threshold=in_archive)
    made = archive.write(bundle, tmp_path, "Modèle/3", settings)
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(made) as content:
        content.extractall(unpacked)
    manifest = json.loads((unpacked / "MAR-INF" / "MANIFEST.json").read_text(encoding="utf-8"))
    spec = importlib.util.spec_from_file_location(f"handler_of_{runtime}", unpacked / manifest["model"]["handler"])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        context = Service(protocol.SERVED_NAME, str(unpacked), manifest, module.handle, None, 2).context
        assert module.handle(None, context) is None
        context.request_processor = [RequestProcessor(TEXT), RequestProcessor(JSON)]
        good, bad = module.handle([{"body": b"goal"}, {"body": b"{"}], context)
    finally:
        del sys.modules[spec.name]
    expected = expect("goal")
    assert json.loads(good) == {**expected, "review": expected["review"] if review is None else review}
    assert "JSON" in json.loads(bad)["message"]
    assert context.get_response_status(1)[0] == 400
    assert urllib.parse.unquote(context.get_response_headers(0)[MODEL_HEADER]) == "Modèle/3"


def test_a_worker_that_is_told_to_close_turns_requests_away(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEWSBERT_ACTIVITY_DIR", str(tmp_path))
    handler, activity = Handler(bundle.path), Heartbeat(tmp_path)
    assert _one(handler, {"body": b"goal"}, TEXT).status == 200
    answered = activity.last()
    assert answered
    activity.close()
    answers = _ask(handler, ({"body": b"goal"}, TEXT), ({"body": b"cup"}, TEXT))
    assert [answer.status for answer in answers] == [503, 503]
    assert answers[0].message == "this server is stopping"
    assert activity.last() == answered


def test_attack_what_is_too_much_for_a_batch_is_refused_and_its_neighbours_are_answered(
    handler: Handler, expect: Callable[[NewsItem], Any]
) -> None:
    large: Request = {"body": b"!" * 1_000_000}, TEXT
    *answers, goal = _ask(handler, *[large] * 8, ({"body": b"goal"}, TEXT))
    assert (goal.status, goal.json) == (200, expect("goal"))
    refused = [answer for answer in answers if answer.status != 200]
    assert len(refused) == 5
    for answer in refused:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert "too much for one batch" in answer.message
    assert _one(handler, *large).status == 200


def test_attack_lists_of_too_many_tokens_are_refused_and_the_smallest_is_answered(handler: Handler) -> None:
    lists = [_json({"instances": ["goal team " * 20] * 1000}) for _ in range(4)]
    answers = _ask(handler, *lists, ({"body": b"goal"}, TEXT))
    assert [answer.status for answer in answers] == [200, 200, 503, 503, 200]


def test_attack_explanations_above_the_lanes_bound_are_refused(handler: Handler) -> None:
    requests = [_json({"text": f"{'goal team cup ' * 10} {number}", "explain": True}) for number in range(60)]
    *answers, goal = _ask(handler, *requests, ({"body": b"goal"}, TEXT))
    assert goal.status == 200
    full = [answer for answer in answers if answer.status == 503 and "too many explanations" in answer.message]
    assert full
    assert all(answer.headers["Retry-After"] == "1" for answer in full)
