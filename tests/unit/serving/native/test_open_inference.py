"""The Open Inference Protocol: requests as its clients send them, and everything else is refused."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsbert.inference.prediction import Prediction
from newsbert.serving.native import open_inference
from newsbert.serving.requests import RequestError

LABELS = ["World", "Sports"]


def _make_input(*texts: str, name: str = "text", **changes: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(texts)], "datatype": "BYTES", "data": list(texts), **changes}


def _parse(document: object, binary: bytes = b"") -> open_inference.InferRequest:
    head = json.dumps(document).encode()
    return open_inference.parse_request(head + binary, str(len(head)) if binary else None)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_texts_arrive_as_they_were_sent_in_json_and_in_binary_form(texts: list[str]) -> None:
    assert _parse({"inputs": [_make_input(*texts)]}).items == texts
    content = open_inference.dump_bytes([text.encode() for text in texts])
    tensor = {"name": "text", "shape": [len(texts), 1], "datatype": "BYTES",
              "parameters": {"binary_data_size": len(content)}}  # fmt: skip
    # A byte order mark at the beginning of a text is no part of it.
    assert _parse({"inputs": [tensor]}, content).items == [text.removeprefix("\ufeff") for text in texts]


def test_a_title_is_an_input_of_its_own() -> None:
    request = _parse({"id": "7", "inputs": [_make_input("Cup", name="title"), _make_input("A goal")]})
    assert request.items == [{"title": "Cup", "text": "A goal"}]
    assert (request.id, request.shape, request.outputs) == ("7", (1,), {})


def test_nested_data_is_read_in_row_major_order() -> None:
    assert _parse({"inputs": [_make_input(shape=[2, 1], data=[["a"], ["b"]])]}).items == ["a", "b"]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "the body must be dict"),
        ({}, "'inputs' must be list"),
        ({"inputs": []}, "the input 'text' is missing"),
        ({"inputs": [_make_input("a"), _make_input("b")]}, "once"),
        ({"inputs": [_make_input("a", name="body")]}, "'body' is not expected"),
        ({"inputs": [_make_input("a", datatype="FP32")]}, "send BYTES"),
        ({"inputs": [_make_input("a", shape=[2])]}, "has 1 elements"),
        ({"inputs": [_make_input("a", shape=[1, 1, 1])]}, "send [N] or [N, 1]"),
        ({"inputs": [_make_input("a", shape=[True])]}, "send [N] or [N, 1]"),
        ({"inputs": [_make_input("a", shape=[-1])]}, "send [N] or [N, 1]"),
        ({"inputs": [_make_input("a", data=[1])]}, "a list of texts"),
        ({"inputs": [_make_input("a", data=[[["a"]]])]}, "a list of texts"),
        ({"inputs": [_make_input("a"), _make_input("b", "c", name="title")]}, "send one shape"),
        ({"inputs": [_make_input("a")], "outputs": [{"name": "x"}]}, "no output 'x'"),
        ({"inputs": [_make_input("a", parameters={"binary_data_size": 9})]}, "has 9 bytes"),
        ({"inputs": [_make_input("a")], "id": 7}, "'id' must be str"),
    ],
)
def test_an_invalid_request_is_refused(document: object, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        _parse(document)
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [b"\x05\x00\x00\x00goa", b"\x01\x00", b"\xff\xff\xff\xffa"])
def test_attack_a_length_beyond_the_end_is_refused(content: bytes) -> None:
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(content)}}
    with pytest.raises(RequestError, match="cut off"):
        _parse({"inputs": [tensor]}, content)
    with pytest.raises(RequestError, match="belong to no input"):
        _parse({"inputs": [_make_input("a")]}, content)


@pytest.mark.parametrize("length", ["-1", "1e3", "999", ""])
def test_an_invalid_length_of_the_json_is_refused(length: str) -> None:
    with pytest.raises(RequestError, match="Inference-Header-Content-Length"):
        open_inference.parse_request(b"{}", length)


def _answer(request: open_inference.InferRequest) -> tuple[bytes, int | None]:
    rows = [[0.25, 0.75]] * len(request.items)
    predictions = [Prediction.of(LABELS, row, 0.8) for row in rows]
    return open_inference.render_response(request, open_inference.make_outputs(predictions, LABELS, rows), "3")


def test_all_outputs_are_in_the_response_unless_some_are_requested() -> None:
    body, length = _answer(_parse({"id": "x", "inputs": [_make_input("a", "b")]}))
    document = json.loads(body)
    assert length is None
    assert (document["model_name"], document["model_version"], document["id"]) == ("news_classification", "3", "x")
    outputs = {output["name"]: output for output in document["outputs"]}
    assert {name: (output["datatype"], output["shape"], output["data"]) for name, output in outputs.items()} == {
        "label": ("BYTES", [2], ["Sports", "Sports"]),
        "score": ("FP32", [2], [0.75, 0.75]),
        "review": ("BOOL", [2], [True, True]),
        "probabilities": ("FP32", [2, 2], [0.25, 0.75, 0.25, 0.75]),
    }
    body, _ = _answer(_parse({"inputs": [_make_input("a")], "outputs": [{"name": "label"}]}))
    assert [output["name"] for output in json.loads(body)["outputs"]] == ["label"]


def test_binary_outputs_follow_the_json_in_order() -> None:
    outputs = [{"name": "label", "parameters": {"binary_data": True}},
               {"name": "probabilities", "parameters": {"binary_data": True}}]  # fmt: skip
    body, length = _answer(_parse({"inputs": [_make_input("a")], "outputs": outputs}))
    assert length is not None
    label, probabilities = json.loads(body[:length])["outputs"]
    content = body[length:]
    size = label["parameters"]["binary_data_size"]
    assert list(open_inference.parse_bytes(content[:size])) == [b"Sports"]
    assert probabilities["parameters"]["binary_data_size"] == len(content) - size == 8
    assert struct.unpack("<2f", content[size:]) == (0.25, 0.75)
    assert np.frombuffer(content[size:], "<f4").tolist() == [0.25, 0.75]
