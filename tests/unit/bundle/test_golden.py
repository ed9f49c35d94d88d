"""Answers to the golden texts against those that training gave."""

import dataclasses
import math

import pytest

from newsbert.bundle.bundle import FP32_TOLERANCE, INT8_GRAPH, Bundle, files_of
from newsbert.bundle.contract import Contract, GraphInfo
from newsbert.bundle.golden import MISMATCH, check_answers, tolerance
from newsbert.errors import ModelError
from newsbert.inference.model import Model
from newsbert.inference.prediction import Prediction

RUNTIME = "onnxruntime"


@pytest.fixture
def answers(bundle: Bundle) -> list[Prediction]:
    """What a server sends."""
    predictions = Model(bundle, runtime=RUNTIME).predict([golden.item for golden in bundle.contract.golden])
    return [Prediction.from_dict(prediction.to_dict()) for prediction in predictions]


def _shift(answer: Prediction, by: float) -> Prediction:
    """The same answer, its best label's probability another one."""
    return dataclasses.replace(answer, probabilities={**answer.probabilities, answer.label: answer.score + by})


def _allow(contract: Contract, tolerances: dict[str, float]) -> Contract:
    return dataclasses.replace(
        contract, graphs={files_of(name)[0]: GraphInfo(name, tolerance, 0.0) for name, tolerance in tolerances.items()}
    )


def test_answers_of_the_same_model_pass(bundle: Bundle, answers: list[Prediction]) -> None:
    assert check_answers(bundle.contract, RUNTIME, answers) < FP32_TOLERANCE


def test_a_runtime_has_its_own_tolerance(bundle: Bundle, answers: list[Prediction]) -> None:
    contract = _allow(bundle.contract, {"onnxruntime": 0.002, "onnxruntime-int8": 0.05})
    answers[2] = _shift(answers[2], 0.04)
    assert check_answers(contract, "onnxruntime-int8", answers) == pytest.approx(0.04, abs=FP32_TOLERANCE)
    for runtime in (RUNTIME, "torch"):  # the latter has no graph: the contract allows it what fp32 gives
        with pytest.raises(ModelError, match=MISMATCH):
            check_answers(contract, runtime, answers)
    assert tolerance(contract, "torch") == FP32_TOLERANCE


def test_rounding_passes(bundle: Bundle) -> None:
    contract = _allow(bundle.contract, {"onnxruntime": 0.0})
    exact = [Prediction.of(contract.labels, golden.probabilities) for golden in contract.golden]
    assert check_answers(contract, RUNTIME, [Prediction.from_dict(prediction.to_dict()) for prediction in exact]) > 0


@pytest.mark.parametrize("by", [0.1, -0.1, math.nan])
def test_a_wrong_probability_fails_with_the_text(bundle: Bundle, answers: list[Prediction], by: float) -> None:
    answers[3] = _shift(answers[3], by)
    with pytest.raises(ModelError, match=f"'Ministers sign border treaty' {MISMATCH}: .* off"):
        check_answers(bundle.contract, RUNTIME, answers)


def test_a_wrong_label_fails_with_both_labels(bundle: Bundle, answers: list[Prediction]) -> None:
    right = answers[0]
    other = next(label for label in bundle.contract.labels if label != right.label)
    swapped = {**right.probabilities, right.label: right.probabilities[other], other: right.score}
    answers[0] = Prediction(other, right.score, swapped)
    with pytest.raises(ModelError, match=f"{MISMATCH}: '{other}' instead of '{right.label}'"):
        check_answers(bundle.contract, RUNTIME, answers)


def test_a_quantized_graph_is_compared_with_its_own_answers(bundle: Bundle, answers: list[Prediction]) -> None:
    own = [_shift(answer, -0.3) for answer in answers]
    golden = [list(answer.probabilities.values()) for answer in own]
    graphs = {**bundle.contract.graphs, INT8_GRAPH: GraphInfo("onnxruntime-int8", 0.02, 0.3, golden=golden)}
    contract = dataclasses.replace(bundle.contract, graphs=graphs)
    assert check_answers(contract, "onnxruntime-int8", own) < 1e-5
    with pytest.raises(ModelError, match=MISMATCH):
        check_answers(contract, "onnxruntime-int8", answers)
    check_answers(contract, RUNTIME, answers)
