"""The handler's answers: predictions, explanations, their limits and headers, and a worker that stops."""

import contextlib
import importlib.util
import json
import sys
import urllib.parse
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import newsbert
from newsbert.bundle.bundle import Bundle
from newsbert.core.settings import ServeSettings
from newsbert.data.text import NewsItem
from newsbert.errors import ModelError
from newsbert.serving import archive, protocol
from newsbert.serving.batches import MAX_EXPLAINED, MAX_ITEMS
from newsbert.serving.handler import Handler
from newsbert.serving.heartbeat import Heartbeat
from newsbert.serving.protocol import MODEL_HEADER
from tests.support.handler import ITEM, JSON, TEXT, Answer, Request, make_request, send, send_one
from tests.support.tiny_model import LABELS, REVIEW_THRESHOLD

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # TorchServe leaves the file with its version open
    from ts.context import RequestProcessor  # type: ignore[import-untyped]
    from ts.service import Service  # type: ignore[import-untyped]


def _send_until_explained(handler: Handler, *requests: Request) -> list[Answer]:
    """Send a batch again and again, until all of its explanations are complete."""
    while True:
        answers = send(handler, *requests)
        if not any(answer.status == 503 for answer in answers):
            return answers
        assert all(answer.headers["Retry-After"] == "1" for answer in answers if answer.status == 503)


@pytest.mark.parametrize("key", ["data", "instances"])
@pytest.mark.parametrize("items", [["goal"], ["goal", ITEM, "bank profit"], [{"text": "x"}] * 40])
def test_a_list_is_answered_with_a_list_in_its_order(
    handler: Handler, expect: Callable[[NewsItem], Any], key: str, items: list[NewsItem]
) -> None:
    answer = send_one(handler, *make_request({key: items}))
    assert answer.status == 200
    assert answer.json == [expect(item) for item in items]


def test_answers_are_flagged_for_review_by_the_threshold(bundle: Bundle, handler: Handler) -> None:
    texts = ["goal team cup coach", "goal stocks", "x", "bank vote", "stocks market profit bank"]
    scores = [prediction["score"] for prediction in send_one(handler, *make_request({"data": texts})).json]
    for below in (None, 0.0, sorted(scores)[2], 1.0):  # the model's own, none, two of five, all
        answer = send_one(Handler(bundle.path, review_threshold=below), *make_request({"data": texts}))
        compared = REVIEW_THRESHOLD if below is None else below
        expected = [score < compared or compared == 1 for score in scores]
        assert [prediction["review"] for prediction in answer.json] == expected
        assert sum(expected) == {None: sum(expected), 0.0: 0, 1.0: 5}.get(below, 2)


def test_the_tier_is_in_an_answer_if_the_header_asks_for_it(handler: Handler) -> None:
    texts = {"data": ["the minister and the border treaty vote", "number 3"]}
    plain, named, refused = (
        send_one(handler, *make_request(texts, **headers)).json for headers in ({}, {"tier": "True"}, {"tier": "x"})
    )
    assert plain == refused
    assert [answer.pop("tier") for answer in named] == ["companion", "model"]
    assert named == plain


def test_explain_adds_an_explanation(handler: Handler) -> None:
    item = {"title": "Cup final", "text": "goal"}
    plain = send_one(handler, *make_request(item)).json
    request = {**item, "explain": True}
    explained, other, unwanted, listed, by_path, text, bare = _send_until_explained(
        handler,
        make_request(request),
        make_request({**request, "label": LABELS[1]}),
        make_request({**item, "explain": False, "label": None}),
        make_request({"instances": ["goal", request]}),
        make_request(item, explain="True"),  # as TorchServe marks /explanations
        ({"body": b"Cup final goal"}, {**TEXT, "explain": "True"}),
        make_request(request, accept="text/plain"),
    )
    answer = explained.json
    explanation = answer.pop("explanation")
    assert answer == {**plain, "score": pytest.approx(plain["score"], abs=1e-3), "probabilities": pytest.approx(
        plain["probabilities"], abs=1e-3
    )}  # fmt: skip
    assert set(explanation) == {"label", "method", "text", "words", "gap"}
    assert (explanation["label"], explanation["text"]) == (plain["label"], "Cup final goal")
    assert [word["text"] for word in explanation["words"]] == ["Cup", "final", "goal"]
    assert other.json["explanation"]["label"] == LABELS[1]
    assert "explanation" not in unwanted.json
    assert ["explanation" in prediction for prediction in listed.json] == [False, True]
    assert by_path.json["explanation"]["words"] == text.json["explanation"]["words"] == explanation["words"]
    assert bare.body.decode() == plain["label"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"explain": "yes"}, "'explain' must be true or false"),
        ({"explain": None}, "'explain' must be true or false"),
        ({"label": LABELS[0]}, "'label' goes with \"explain\": true"),
        ({"explain": True, "label": "Weather"}, "there is no label 'Weather': "),
        ({"explain": True, "label": [1]}, "there is no label [1]: "),
    ],
)
def test_an_invalid_explain_or_label_is_a_400(handler: Handler, more: dict[str, Any], message: str) -> None:
    answer = send_one(handler, *make_request({"text": "goal", **more}))
    assert answer.status == 400
    assert answer.message.startswith(message)


def test_explanations_are_limited_to_the_maximum(handler: Handler) -> None:
    request = {"text": "goal", "explain": True}
    (answer,) = _send_until_explained(handler, make_request({"instances": [request] * MAX_EXPLAINED}))
    assert len(answer.json) == MAX_EXPLAINED
    refused = send_one(handler, *make_request({"instances": [request] * (MAX_EXPLAINED + 1)}))
    assert (refused.status, refused.message[:28]) == (413, "11 explanations in one reque")


def test_items_are_limited_to_the_maximum(handler: Handler) -> None:
    allowed, refused = send(
        handler, make_request({"data": ["goal"] * MAX_ITEMS}), make_request({"data": ["goal"] * (MAX_ITEMS + 1)})
    )
    assert (allowed.status, len(allowed.json)) == (200, MAX_ITEMS)
    assert refused.status == 413
    assert str(MAX_ITEMS + 1) in refused.message
    assert str(MAX_ITEMS) in refused.message


@pytest.mark.parametrize("accept", ["text/plain", "text/plain; charset=utf-8", "Text/Plain, application/json;q=0.5"])
def test_accept_text_returns_the_label_only(handler: Handler, expect: Callable[[NewsItem], Any], accept: str) -> None:
    labels = [expect(text)["label"] for text in ("stocks market profit bank", "goal team cup coach", "vote")]
    one, many = send(
        handler,
        ({"body": b"stocks market profit bank"}, {**TEXT, "Accept": accept}),
        make_request({"data": ["goal team cup coach", "vote"]}, accept=accept),
    )
    assert (one.status, one.body.decode()) == (200, labels[0])
    assert many.body.decode() == "\n".join(labels[1:])
    assert one.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("accept", ["*/*", "", "application/json", "application/json, text/plain", "text/html"])
def test_any_other_accept_returns_json(handler: Handler, accept: str) -> None:
    answer = send_one(handler, {"body": b"goal"}, {"accept": accept})
    assert answer.json["label"] in LABELS


def test_errors_are_json_with_accept_text(handler: Handler) -> None:
    answer = send_one(handler, {"body": b""}, {**TEXT, "accept": "text/plain"})
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
def test_every_answer_has_the_model_header(trained: tuple[newsbert.TrainResult, str], name: str) -> None:
    handler = Handler(trained[0].bundle, name)
    for answer in send(handler, ({"body": b"goal"}, TEXT), ({"body": b""}, TEXT), ({}, {})):
        value = answer.headers[MODEL_HEADER]
        assert urllib.parse.unquote(value) == name
        assert value.isascii()
        assert value.isprintable()
    assert MODEL_HEADER == "X-Newsbert-Model"


def test_a_plain_model_name_is_not_quoted(handler: Handler) -> None:
    assert send_one(handler, {"body": b"goal"}, TEXT).headers["X-Newsbert-Model"] == "TinyModel/1"


def test_an_altered_archive_is_not_served(trained: tuple[newsbert.TrainResult, str], tmp_path: Path) -> None:
    for name in Bundle.read(trained[0].bundle).names("onnxruntime"):
        (tmp_path / name).write_bytes((trained[0].bundle / name).read_bytes())
    Handler(tmp_path)
    with (tmp_path / "tokenizer.json").open("a") as stream:
        stream.write(" ")
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        Handler(tmp_path)


@pytest.mark.parametrize(
    ("runtime", "in_archive", "variable", "review"),
    [
        ("onnxruntime", None, "", None),
        ("torch", None, "", None),
        ("onnxruntime", 1.0, "", True),
        ("onnxruntime", 1.0, "0", False),
        ("onnxruntime", None, "1", True),
    ],
)
def test_torchserve_loads_the_handler_and_configuration_of_an_archive(
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    expect: Callable[[NewsItem], Any],
    runtime: str,
    in_archive: float | None,
    variable: str,
    review: bool | None,
) -> None:
    monkeypatch.setenv("NEWSBERT_SERVE_REVIEW_THRESHOLD", variable)
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


def test_a_closing_worker_refuses_requests(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWSBERT_ACTIVITY_DIR", str(tmp_path))
    handler, activity = Handler(bundle.path), Heartbeat(tmp_path)
    assert send_one(handler, {"body": b"goal"}, TEXT).status == 200
    answered = activity.last()
    assert answered
    activity.close()
    answers = send(handler, ({"body": b"goal"}, TEXT), ({"body": b"cup"}, TEXT))
    assert [answer.status for answer in answers] == [503, 503]
    assert answers[0].message == "this server is stopping"
    assert activity.last() == answered


def test_attack_too_many_explanations_are_refused(bundle: Bundle) -> None:
    requests = [make_request({"text": f"{'goal team cup ' * 10} {number}", "explain": True}) for number in range(60)]
    with contextlib.closing(Handler(bundle.path)) as handler:
        *answers, goal = send(handler, *requests, ({"body": b"goal"}, TEXT))
    assert goal.status == 200
    full = [answer for answer in answers if answer.status == 503 and "too many explanations" in answer.message]
    assert full
    assert all(answer.headers["Retry-After"] == "1" for answer in full)
