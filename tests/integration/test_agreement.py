"""No difference between training and serving: one text gets one answer, from every interface and in every batch."""

import json
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import newsbert
from newsbert.bundle.bundle import AUTO, Bundle
from newsbert.core.settings import ServeSettings
from newsbert.data.text import NewsItem
from newsbert.images.run import serving
from newsbert.inference.model import Model
from newsbert.inference.runtime import InferenceTimings, load_runtime
from newsbert.serving import local
from newsbert.serving.client import Client
from tests.support.texts import held_out
from tests.support.tiny_model import REVIEW_THRESHOLD

TOLERANCE = 1e-3
ITEMS = held_out()
Answer = Callable[[Sequence[NewsItem]], NDArray[Any]]

# Loads what was logged in a process of its own, pickle disallowed, and answers in two ways.
_MLFLOW = """
import json, sys
import mlflow, numpy as np, pandas as pd
uri, reference = sys.argv[1:]
mlflow.set_tracking_uri(uri)
items = json.load(sys.stdin)
titled = [item for item in items if isinstance(item, dict)]
text = mlflow.pyfunc.load_model(reference)
reviews = []
def rows(frame):
    reviews.extend(zip(frame["score"].tolist(), frame["review"].tolist()))
    return [list(scores.values()) for scores in frame["probabilities"]]
plain = [item for item in items if isinstance(item, str)]
batch = rows(text.predict(pd.DataFrame({"text": plain})))
alone = [rows(text.predict([{"text": item}]))[0] for item in plain]
try:
    text.predict(pd.DataFrame({"headline": plain}))
except mlflow.exceptions.MlflowException as error:
    assert "missing inputs ['text']" in str(error), error
else:
    raise AssertionError("a frame without a text was answered")
graph = mlflow.pytorch.load_model(reference)
json.dump({"batch": batch, "alone": alone, "graph": type(graph).__name__, "reviews": reviews}, sys.stdout)
"""


TEXT = "größer als sieben Tore: the team, the cup"
"""A text that no form may change."""


def _reviewed(scores_and_reviews: Sequence[tuple[float, bool]]) -> None:
    """An answer's score alone decides whether a person reviews it, in every interface; of many texts, some are."""
    for score, review in scores_and_reviews:
        assert review is (round(score, 6) < REVIEW_THRESHOLD)
    if len(scores_and_reviews) >= len(ITEMS):
        review_rate = np.mean([review for _, review in scores_and_reviews])
        assert 0.05 < review_rate < 0.95


def _model(reply: "list[newsbert.Prediction]") -> NDArray[Any]:
    _reviewed([(prediction.score, prediction.review) for prediction in reply])
    return np.array([list(prediction.probabilities.values()) for prediction in reply])


def _expected(bundle: Bundle, runtime: str = "torch") -> NDArray[Any]:
    """The trained model's answer to every text by itself: in PyTorch, or in another runtime."""
    reference = load_runtime(bundle, runtime)
    return np.concatenate([reference.predict([item]) for item in ITEMS])


def _check(expected: NDArray[Any], answer: Answer) -> None:
    """Ask for every text alone, for all together, and for all in the opposite order."""
    alone = np.concatenate([answer([item]) for item in ITEMS])
    together = answer(ITEMS)
    backwards = answer(ITEMS[::-1])[::-1]
    for seen in (alone, together, backwards):
        assert float(np.abs(seen - expected).max()) <= TOLERANCE


def test_texts_are_two_hundred_and_distinct() -> None:
    assert len({json.dumps(item) for item in ITEMS}) == len(ITEMS) == 200


def test_each_tier_answers_some_of_the_texts(bundle: Bundle) -> None:
    timings, runtime = InferenceTimings(), load_runtime(bundle, "onnxruntime")
    runtime.predict_prepared([runtime.prepare(item) for item in ITEMS], timings)
    assert 0.05 < np.mean(timings.by_companion) < 0.95


def test_torch_in_a_batch_and_onnx_runtime_agree_with_torch_alone(bundle: Bundle) -> None:
    expected = _expected(bundle)
    _check(expected, load_runtime(bundle, "torch").predict)
    _check(expected, load_runtime(bundle, "onnxruntime").predict)
    # Quantized, if this processor can: its contract promises labels and accuracy, not each probability.
    quantized = np.abs(_expected(bundle, AUTO) - expected)
    assert float(quantized.max()) <= 0.2
    assert float(quantized.mean()) <= 0.01
    # A test that compares answers must not compare one answer with itself.
    assert float(expected.std(axis=0).min()) > 0.05


def test_a_model_in_this_process_agrees(bundle: Bundle) -> None:
    model = newsbert.load(bundle.path)
    _check(_expected(bundle, AUTO), lambda items: _model(model.predict(items)))


def test_the_logged_mlflow_model_agrees(bundle: Bundle, trained: tuple[newsbert.TrainResult, str]) -> None:
    result, uri = trained
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _MLFLOW, uri, f"models:/{result.version}"],
        input=json.dumps(ITEMS),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    seen = json.loads(run.stdout)
    _reviewed(seen["reviews"])
    plain = [index for index, item in enumerate(ITEMS) if isinstance(item, str)]
    expected = _expected(bundle, AUTO)[plain]
    assert np.abs(np.array(seen["batch"]) - expected).max() <= TOLERANCE
    assert np.abs(np.array(seen["alone"]) - expected).max() <= TOLERANCE


def test_the_logged_pytorch_graph_agrees(bundle: Bundle, trained: tuple[newsbert.TrainResult, str]) -> None:
    import mlflow
    import torch

    from newsbert.data.text import preprocess
    from newsbert.evaluation.calibration import softmax
    from newsbert.inference.tokenization import SequenceTokenizer, pad

    result, uri = trained
    mlflow.set_tracking_uri(uri)
    graph = mlflow.pytorch.load_model(f"models:/{result.version}")
    contract = bundle.contract
    tokenizer = SequenceTokenizer.load(bundle.path / "tokenizer.json", contract.max_length, contract.pad_id)

    def answer(items: Sequence[NewsItem]) -> NDArray[Any]:
        ids = tokenizer.encode([preprocess(item, contract.cleaning) for item in items])
        input_ids, attention_mask = pad(ids, contract.pad_id)
        with torch.no_grad():
            logits = graph(torch.from_numpy(input_ids), torch.from_numpy(attention_mask)).numpy()
            return softmax(logits, bundle.contract.temperature)

    _check(_expected(bundle.without_companion()), answer)


def test_a_server_agrees(bundle: Bundle, any_server: local.Server) -> None:
    url = any_server.address.url
    client = Client(url)
    expected = _expected(bundle, AUTO)
    _check(expected, lambda items: _model(client.predict(items)))
    assert client.name == "TinyModel/1"
    # Requests at once are computed in common batches: neighbours of all kinds and lengths.
    with ThreadPoolExecutor(16) as pool:
        crowd = np.concatenate(list(pool.map(lambda item: _model(Client(url).predict([item])), ITEMS)))
    assert float(np.abs(crowd - expected).max()) <= TOLERANCE


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/plain", TEXT.encode()),
        ("application/json", json.dumps({"text": TEXT}).encode()),
        ("application/json", json.dumps({"data": TEXT}).encode()),
        ("application/x-www-form-urlencoded", urllib.parse.urlencode({"data": TEXT}).encode()),
        ("application/x-www-form-urlencoded", f"data={TEXT}".encode()),
        (
            "multipart/form-data; boundary=B",
            f'--B\r\nContent-Disposition: form-data; name="text"\r\n\r\n{TEXT}\r\n--B--\r\n'.encode(),
        ),
    ],
    ids=["text", "text in JSON", "data in JSON", "form", "form without encoding", "multipart"],
)
def test_every_form_of_a_request_has_the_same_answer(
    any_server: local.Server, bundle: Bundle, content_type: str, body: bytes
) -> None:
    request = urllib.request.Request(any_server.address.predictions_url, body, {"Content-Type": content_type})
    with urllib.request.urlopen(request, timeout=30) as response:
        answer = json.load(response)
    (prediction,) = Model.from_directory(bundle.path).predict([TEXT])
    assert answer["probabilities"] == pytest.approx(prediction.probabilities, abs=TOLERANCE)


@pytest.mark.engine
def test_the_container_agrees(bundle: Bundle, tiny_image: str) -> None:
    with serving(tiny_image, ServeSettings(port=0), threading.Event(), print) as running:
        assert running is not None
        client = Client(running.address.url)
        _check(_expected(bundle, AUTO), lambda items: _model(client.predict(items)))
        assert client.name == "TinyModel/1"
