"""Scores and softmax against the definitions, computed here row by row in plain Python."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from newsbert.core.types import FloatArray
from newsbert.evaluation.calibration import calibration_error, fit_temperature, reliability, softmax
from newsbert.evaluation.metrics import score

relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)


@st.composite
def draw_scored(draw: st.DrawFn) -> tuple[FloatArray, list[int]]:
    """Probabilities of 1 to 30 rows over 1 to 5 classes, and true ids."""
    count, classes = draw(st.integers(1, 30)), draw(st.integers(1, 5))
    elements = st.floats(2**-10, 1, width=32)
    weights = draw(arrays.arrays(np.float32, (count, classes), elements=elements))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32), labels


def test_scores_of_a_worked_example() -> None:
    # true a a a b b c; predicted a a b b c c
    probabilities = np.array(
        [[0.8, 0.1, 0.1], [0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.1, 0.8, 0.1], [0.25, 0.25, 0.5], [0.1, 0.1, 0.8]],
        dtype=np.float32,
    )
    scores = score(probabilities, [0, 0, 0, 1, 1, 2], ["a", "b", "c"])
    assert scores.accuracy == pytest.approx(4 / 6)
    assert scores.confusion.tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    a, b, c = (scores.per_class[name] for name in "abc")
    assert (a.precision, a.recall, a.f1, a.support) == pytest.approx((1, 2 / 3, 4 / 5, 3))
    assert (b.precision, b.recall, b.f1, b.support) == pytest.approx((1 / 2, 1 / 2, 1 / 2, 2))
    assert (c.precision, c.recall, c.f1, c.support) == pytest.approx((1 / 2, 1, 2 / 3, 1))
    assert scores.f1_macro == pytest.approx((4 / 5 + 1 / 2 + 2 / 3) / 3)
    assert scores.loss == pytest.approx(-math.log(0.8 * 0.5 * 0.2 * 0.8 * 0.25 * 0.8) / 6, rel=1e-6)


@relaxed
@given(draw_scored())
def test_scores_equal_their_definitions(case: tuple[FloatArray, list[int]]) -> None:
    probabilities, labels = case
    names = [f"class {index}" for index in range(probabilities.shape[1])]
    predicted = [row.index(max(row)) for row in probabilities.tolist()]
    pairs = list(zip(labels, predicted, strict=True))
    scores = score(probabilities, labels, names)
    assert scores.accuracy == pytest.approx(sum(t == p for t, p in pairs) / len(pairs))
    f1_of_all = []
    for index, name in enumerate(names):
        hits = pairs.count((index, index))
        wrongly, missed = predicted.count(index) - hits, labels.count(index) - hits
        f1 = 2 * hits / (2 * hits + wrongly + missed) if hits else 0.0
        class_scores = scores.per_class[name]
        assert class_scores.f1 == pytest.approx(f1)
        assert class_scores.precision == pytest.approx(hits / (hits + wrongly) if hits else 0.0)
        assert class_scores.recall == pytest.approx(hits / (hits + missed) if hits else 0.0)
        assert class_scores.support == labels.count(index)
        assert scores.confusion[index].tolist() == [pairs.count((index, other)) for other in range(len(names))]
        if index in labels:
            f1_of_all.append(f1)
    assert scores.f1_macro == pytest.approx(sum(f1_of_all) / len(f1_of_all))
    likelihoods = [float(row[label]) for row, label in zip(probabilities, labels, strict=True)]
    assert scores.loss == pytest.approx(sum(-math.log(p) for p in likelihoods) / len(labels), rel=1e-4, abs=1e-6)


def test_classes_without_rows_are_excluded() -> None:
    probabilities = np.array([[1, 0, 0], [0, 1, 0]], dtype=np.float32)
    scores = score(probabilities, [0, 0], ["a", "b", "c"])
    assert scores.accuracy == 1 / 2
    assert scores.f1_macro == pytest.approx(2 / 3)
    assert [scores.per_class[name].support for name in "abc"] == [2, 0, 0]
    assert [scores.per_class[name].f1 for name in "bc"] == [0, 0]


def test_the_most_confused_pairs_come_first() -> None:
    # true a a a b b c; predicted b b a a c c
    probabilities = np.eye(3, dtype=np.float32)[[1, 1, 0, 0, 2, 2]]
    scores = score(probabilities, [0, 0, 0, 1, 1, 2], ["a", "b", "c"])
    assert scores.confused(9) == [("a", "b", 2), ("b", "a", 1), ("b", "c", 1)]
    assert scores.confused(1) == [("a", "b", 2)]


def test_a_confident_wrong_prediction_has_a_finite_loss() -> None:
    scores = score(np.array([[0.0, 1.0]], dtype=np.float32), [0], ["a", "b"])
    assert scores.accuracy == 0
    assert math.isfinite(scores.loss)
    assert scores.loss > 20


@pytest.mark.parametrize(
    ("shape", "labels"),
    [
        ((0, 2), []),
        ((2, 2), [0]),
        ((1, 2), [0, 1]),
        ((2, 3), [0, 1]),
        ((2,), [0, 1]),
        ((2, 2), [0, 2]),
        ((2, 2), [-1, 0]),
    ],
)
def test_arrays_of_different_shapes_are_refused(shape: tuple[int, ...], labels: list[int]) -> None:
    with pytest.raises(ValueError, match="cannot score"):
        score(np.full(shape, 0.5, dtype=np.float32), labels, ["a", "b"])


logits_arrays = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.floats(-50, 50, width=32)
)


@relaxed
@given(logits_arrays, st.floats(0.5, 4))
def test_softmax_equals_its_definition(logits: FloatArray, temperature: float) -> None:
    probabilities = softmax(logits, temperature)
    assert probabilities.shape == logits.shape
    assert probabilities.dtype == np.float32
    for row, answered in zip(logits.tolist(), probabilities.tolist(), strict=True):
        weights = [math.exp((value - max(row)) / temperature) for value in row]
        assert answered == pytest.approx([weight / sum(weights) for weight in weights], abs=1e-5)


@relaxed
@given(logits_arrays)
def test_temperature_changes_the_confidence_only(logits: FloatArray) -> None:
    plain, warm = softmax(logits), softmax(logits, 3.0)
    best = logits.argmax(axis=1)[:, None]
    assert (np.take_along_axis(warm, best, 1) == warm.max(axis=1, keepdims=True)).all()
    assert (warm.max(axis=1) <= plain.max(axis=1) + 1e-6).all()


def test_softmax_of_huge_logits_does_not_overflow() -> None:
    assert softmax(np.array([[3e38, 0.0], [-3e38, -3e38]], dtype=np.float32)).tolist() == [[1, 0], [0.5, 0.5]]


def _draw(rows: int, temperature: float, seed: int = 1) -> tuple[FloatArray, list[int]]:
    """Logits, and labels that are as frequent as these logits at a temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (rows, 4)).astype(np.float32)
    return logits, [int(rng.choice(4, p=row / row.sum())) for row in softmax(logits, temperature).astype(np.float64)]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_of_drawn_labels_is_fitted(temperature: float) -> None:
    logits, labels = _draw(20_000, temperature)
    fitted = fit_temperature(logits, labels)
    assert fitted == pytest.approx(temperature, rel=0.05)
    assert calibration_error(reliability(softmax(logits, fitted), labels)) < 0.02


def test_without_rows_the_temperature_is_one() -> None:
    assert fit_temperature(np.empty((0, 4), np.float32), []) == 1.0


def test_more_correct_rows_give_more_confidence() -> None:
    def certainty(rows: int) -> float:
        logits = np.tile(np.array([[1.0, 0.0]], np.float32), (rows, 1))
        return float(softmax(logits, fit_temperature(logits, [0] * rows))[0, 0])

    assert [certainty(rows) for rows in (1, 8, 98)] == pytest.approx([2 / 3, 0.9, 0.99], abs=1e-3)


def test_predictions_worse_than_chance_lose_confidence() -> None:
    logits = np.tile(np.array([[5.0, 0.0]], np.float32), (50, 1))
    assert softmax(logits, fit_temperature(logits, [1] * 50))[0].tolist() == pytest.approx([0.5, 0.5], abs=0.02)


@relaxed
@given(logits_arrays, st.data())
def test_the_fitted_temperature_is_optimal(logits: FloatArray, data: st.DataObject) -> None:
    rows, classes = logits.shape
    labels = data.draw(st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows))
    doubt = 1 / (rows + 2)

    def loss(temperature: float) -> float:
        total = 0.0
        for row, label in zip(logits.astype(np.float64) / temperature, labels, strict=True):
            logs = row - row.max() - math.log(np.exp(row - row.max()).sum())
            others = (logs.sum() - logs[label]) / max(1, classes - 1)
            total -= (1 - doubt) * logs[label] + doubt * others
        return float(total)

    fitted = fit_temperature(logits, labels)
    assert 0.01 <= fitted <= 100
    for other in (0.9 * fitted, 1.1 * fitted):
        if 0.01 <= other <= 100:
            assert loss(fitted) <= loss(other) + 1e-3 * (1 + abs(loss(other)))


def test_reliability_counts_rows_by_confidence() -> None:
    probabilities = np.array([[0.95, 0.05], [0.93, 0.07], [0.45, 0.55], [0.41, 0.59], [1.0, 0.0]], np.float32)
    labels = [0, 1, 1, 0, 0]
    low, high = reliability(probabilities, labels, bins=5)  # from 0.4 to 0.6, and from 0.8 to 1
    assert [low.fraction, low.confidence, low.accuracy] == pytest.approx([2 / 5, (0.55 + 0.59) / 2, 1 / 2])
    assert [high.fraction, high.confidence, high.accuracy] == pytest.approx([3 / 5, (0.95 + 0.93 + 1) / 3, 2 / 3])
    assert calibration_error([low, high]) == pytest.approx(2 / 5 * 0.07 + 3 / 5 * (0.96 - 2 / 3))
    scores = score(probabilities, labels, ["a", "b"])
    assert scores.calibration_error == calibration_error(reliability(probabilities, labels))
