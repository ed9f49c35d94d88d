"""Requests of one batch do not affect one another."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newsbert.data.text import NewsItem
from newsbert.serving.batches import MAX_ITEMS
from newsbert.serving.handler import Handler
from newsbert.serving.protocol import MODEL_HEADER
from tests.support.handler import FORM, ITEM, TEXT, Request, make_request, send, send_one


def test_a_bad_request_does_not_affect_its_batch(handler: Handler, expect: Callable[[NewsItem], Any]) -> None:
    answers = send(
        handler,
        ({"body": b"goal"}, TEXT),
        ({"body": b"\xff"}, TEXT),
        make_request({"data": ["bank profit", "vote"]}),
        make_request({"data": ["bank profit", 7]}),
        ({"body": b"x"}, {"content-type": "image/png"}),
        make_request({"data": ["x"] * (MAX_ITEMS + 1)}),
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
    make_request(ITEM),
    make_request({"instances": ["vote", {"title": "border"}, "coach " * 100]}),
    ({"body": b"minister signs treaty"}, {"accept": "text/plain"}),
]


@settings(max_examples=150, deadline=None)
@given(
    garbage=st.lists(_GARBAGE, min_size=1, max_size=4),
    good=st.lists(st.sampled_from(_GOOD), max_size=4),
    data=st.data(),
)
def test_good_requests_get_the_same_answers_in_any_batch(
    handler: Handler, garbage: list[Request], good: list[Request], data: st.DataObject
) -> None:
    batch = data.draw(
        st.permutations([*((request, False) for request in garbage), *((request, True) for request in good)])
    )
    for answer, (request, is_good) in zip(send(handler, *(request for request, _ in batch)), batch, strict=True):
        assert answer.headers[MODEL_HEADER] == "TinyModel/1"
        if is_good:
            alone = send_one(handler, *request)
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


def test_attack_requests_too_large_for_a_batch_are_refused_alone(
    handler: Handler, expect: Callable[[NewsItem], Any]
) -> None:
    large: Request = {"body": b"!" * 1_000_000}, TEXT
    *answers, goal = send(handler, *[large] * 8, ({"body": b"goal"}, TEXT))
    assert (goal.status, goal.json) == (200, expect("goal"))
    refused = [answer for answer in answers if answer.status != 200]
    assert len(refused) == 5
    for answer in refused:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert "too much for one batch" in answer.message
    assert send_one(handler, *large).status == 200


def test_attack_lists_with_too_many_tokens_are_refused_alone(handler: Handler) -> None:
    lists = [make_request({"instances": ["goal team " * 20] * 1000}) for _ in range(4)]
    answers = send(handler, *lists, ({"body": b"goal"}, TEXT))
    assert [answer.status for answer in answers] == [200, 200, 503, 503, 200]
