"""Two tiers, one answer: which tier answers a text, and what, depends on the text alone."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import newsbert
from newsbert.bundle.bundle import AUTO, Bundle
from newsbert.bundle.contract import CONTRACT_FILE
from newsbert.bundle.golden import check_answers, check_companion
from newsbert.core.types import FloatArray
from newsbert.errors import ModelError, UsageError
from newsbert.evaluation.mixing import Mix
from newsbert.inference.explanation import SHAPLEY_SAMPLING
from newsbert.inference.model import Model
from newsbert.inference.prediction import COMPANION, MODEL
from newsbert.inference.runtime import NEVER, InferenceTimings, Runtime, load_runtime
from tests.support.two_tiers import without_cascade

TEXTS = [
    "stocks fall as bank profit rises", "goal for the team", "the minister and the border treaty", "number 3",
    "goal of the bank", "vote cup market", "treaty", "東京株式市場", "of the " * 200, "stocks " * 300,
]  # fmt: skip
RUNTIMES = ("onnxruntime", "torch")


@pytest.fixture(scope="module")
def two_tiers(trained: tuple[newsbert.TrainResult, str]) -> Bundle:
    return Bundle.read(trained[0].bundle)


@pytest.fixture(scope="module", params=RUNTIMES)
def runtime(two_tiers: Bundle, request: pytest.FixtureRequest) -> Runtime:
    return load_runtime(two_tiers, request.param)


def _predict(runtime: Runtime, texts: list[str], threshold: float | None = None) -> tuple[FloatArray, list[bool]]:
    timings = InferenceTimings()
    probabilities = runtime.predict_prepared(texts, timings, threshold)
    return probabilities, timings.by_companion


def test_the_texts_of_these_tests_meet_both_tiers(runtime: Runtime) -> None:
    _, by_companion = _predict(runtime, TEXTS)
    assert 2 <= sum(by_companion) <= len(TEXTS) - 2


def test_an_answer_is_the_companions_or_the_mix(runtime: Runtime, two_tiers: Bundle) -> None:
    served, by_companion = _predict(runtime, TEXTS)
    companion, everything = _predict(runtime, TEXTS, 0.0)
    mixed, nothing = _predict(runtime, TEXTS, NEVER)
    assert (set(everything), set(nothing)) == ({True}, {False})
    info = two_tiers.contract.companion
    assert info is not None and info.threshold is not None
    assert by_companion == (np.round(companion.max(axis=1).astype(np.float64), 6) >= info.threshold).tolist()
    for row, sure in enumerate(by_companion):
        if sure:
            assert served[row].tobytes() == companion[row].tobytes()
        else:
            assert np.abs(served[row] - mixed[row]).max() <= 1e-3
    encoder = load_runtime(two_tiers.without_companion(), "onnxruntime").predict_prepared(TEXTS)
    expected = Mix(info.model_weight, info.companion_weight).apply(np.log(encoder), np.log(companion))
    assert np.abs(mixed - expected).max() <= 2e-3


@given(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=20))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_tier_and_answer_do_not_depend_on_the_batch(runtime: Runtime, texts: list[str]) -> None:
    together, tiers = _predict(runtime, texts)
    for row, text in enumerate(texts):
        alone, (tier,) = _predict(runtime, [text])
        assert tier == tiers[row]
        difference = np.abs(alone[0] - together[row]).max()
        assert difference == 0 if tier else difference <= 1e-3


def test_tiers_are_the_same_with_every_runtime_and_number_of_threads(two_tiers: Bundle) -> None:
    answers = [
        _predict(load_runtime(two_tiers, name, threads), TEXTS)
        for name, threads in (("onnxruntime", 1), ("onnxruntime", 2), ("torch", 1))
    ]
    assert len({tuple(tiers) for _, tiers in answers}) == 1
    sure = answers[0][1]
    assert len({probabilities[sure].tobytes() for probabilities, _ in answers}) == 1
    for probabilities, _ in answers[1:]:
        assert np.abs(probabilities - answers[0][0]).max() <= 1e-3


def test_a_prediction_names_its_tier_when_asked(two_tiers: Bundle) -> None:
    predictions = Model(two_tiers, runtime="onnxruntime").predict(TEXTS)
    assert {prediction.tier for prediction in predictions} == {COMPANION, MODEL}
    assert "tier" not in predictions[0].to_dict()
    assert predictions[0].to_dict(tier=True)["tier"] == predictions[0].tier


def test_the_cascade_can_be_turned_off(two_tiers: Bundle, tmp_path: Path) -> None:
    bundle = without_cascade(two_tiers, tmp_path / "bundle")
    off = Model(two_tiers, runtime="onnxruntime", cascade="off").predict(TEXTS)
    assert {prediction.tier for prediction in off} == {MODEL}
    on = Model(two_tiers, runtime="onnxruntime", cascade="on").predict(TEXTS)
    assert on == Model(two_tiers, runtime="onnxruntime", cascade=AUTO).predict(TEXTS)
    assert {prediction.tier for prediction in Model(bundle, cascade=AUTO).predict(TEXTS)} == {MODEL}
    with pytest.raises(ModelError, match="has no threshold for a cascade"):
        Model(bundle, cascade="on")
    with pytest.raises(UsageError, match="no cascade 'maybe'"):
        Model(bundle, cascade="maybe")


@pytest.mark.parametrize("cascade", ["on", "off"])
def test_golden_answers_hold_with_and_without_cascade(two_tiers: Bundle, cascade: str) -> None:
    model = Model(two_tiers, runtime="onnxruntime", cascade=cascade)
    items = [golden.item for golden in two_tiers.contract.golden]
    check_answers(two_tiers.contract, "onnxruntime", model.predict(items))


def test_golden_answers_of_another_companion_are_refused(two_tiers: Bundle, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(two_tiers.path, copy)
    weights = np.load(copy / "companion.npy")
    weights[weights > 50] -= 10
    np.save(copy / "companion.npy", weights)
    changed = load_runtime(Bundle.read_unsigned(copy), "onnxruntime")
    texts = [changed.prepare(golden.item) for golden in two_tiers.contract.golden]
    intact = load_runtime(two_tiers, "onnxruntime")
    check_companion(two_tiers.contract, intact.predict_prepared(texts, threshold=0.0).tolist())
    with pytest.raises(ModelError, match="is answered otherwise than in training by the companion"):
        check_companion(two_tiers.contract, changed.predict_prepared(texts, threshold=0.0).tolist())


@pytest.mark.parametrize("name", RUNTIMES)
def test_the_tier_that_answered_is_explained(two_tiers: Bundle, name: str) -> None:
    model = Model(two_tiers, runtime=name)
    explanations = model.explain(TEXTS[:5])
    for explained, prediction in zip(explanations, model.predict(TEXTS[:5]), strict=True):
        assert explained.prediction == prediction
        assert explained.method == SHAPLEY_SAMPLING
        threshold = 0.0 if prediction.tier == COMPANION else NEVER
        whole, nothing = (
            model._runtime.predict_prepared([text], threshold=threshold)[0] for text in (explained.text, "")
        )
        label = list(prediction.probabilities).index(prediction.label)
        attributions = sum(word.attribution for word in explained.words)
        assert attributions == pytest.approx(float(whole[label] - nothing[label]), abs=5e-3)


def test_a_bundle_of_the_version_before_is_served_as_it_is(bundle: Bundle, tmp_path: Path) -> None:
    copy = tmp_path / "old"
    shutil.copytree(bundle.path, copy)
    (copy / "companion.npy").unlink()
    values = json.loads((copy / CONTRACT_FILE).read_text(encoding="utf-8"))
    values["format_version"] = 2
    del values["companion"], values["files"]["companion.npy"]
    encoder = load_runtime(bundle.without_companion(), "torch")
    answers = encoder.predict([golden["item"] for golden in values["golden"]]).tolist()
    for golden, probabilities in zip(values["golden"], answers, strict=True):
        golden["probabilities"] = probabilities
    (copy / CONTRACT_FILE).write_text(json.dumps(values), encoding="utf-8")
    model = Model.from_directory(copy, runtime="onnxruntime")
    assert {prediction.tier for prediction in model.predict(TEXTS)} == {MODEL}
    check_answers(model.bundle.contract, "onnxruntime", model.predict([text["item"] for text in values["golden"]]))


def test_a_companion_that_the_contract_names_must_be_there(bundle: Bundle, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle.path, copy)
    (copy / "companion.npy").unlink()
    with pytest.raises(ModelError, match=r"has lost its file companion\.npy"):
        Model.from_directory(copy)
    files = {name: digest for name, digest in bundle.contract.files.items() if name != "companion.npy"}
    contract = dataclasses.replace(bundle.contract, files=files)
    (copy / CONTRACT_FILE).write_text(contract.to_json(), encoding="utf-8")
    with pytest.raises(ModelError, match=r"does not name companion\.npy"):
        Model.from_directory(copy)
