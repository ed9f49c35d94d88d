"""Intervals and McNemar's test against answers known from elsewhere."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newsbert.cli import train
from newsbert.evaluation.metrics import score
from newsbert.evaluation.significance import Interval, accuracy_lower_bound, interval, mcnemar, resample

Case = tuple[list[int], list[int], list[int], int]


@st.composite
def draw_predictions(draw: st.DrawFn) -> Case:
    """True ids and those of two models of 1 to 40 rows, and how many labels there are."""
    rows, labels = draw(st.integers(1, 40)), draw(st.integers(1, 5))
    ids = st.lists(st.integers(0, labels - 1), min_size=rows, max_size=rows)
    return draw(ids), draw(ids), draw(ids), labels


def test_the_interval_of_an_accuracy_is_binomial() -> None:
    true = np.zeros(400, dtype=np.int64)
    answers = (np.arange(400) < 40).astype(np.int64)  # 0.9 are right
    bounds = interval(resample(true, [answers], 2, resamples=20_000)[0].accuracy)
    spread = 1.96 * math.sqrt(0.9 * 0.1 / 400)
    assert (bounds.low, bounds.high) == pytest.approx((0.9 - spread, 0.9 + spread), abs=0.003)


def test_resamples_equal_the_plain_bootstrap() -> None:
    """Against the plain bootstrap, which draws row after row and scores them as any others."""
    rng = np.random.default_rng(3)
    true = rng.integers(0, 3, 120)
    answers = np.where(rng.random(120) < 0.7, true, rng.integers(0, 3, 120))
    plain = []
    for _ in range(4000):
        rows = rng.integers(0, 120, 120)
        plain.append(score(np.eye(3, dtype=np.float32)[answers[rows]], true[rows].tolist(), "abc").f1_macro)
    f1_macro = resample(true, [answers], 3, resamples=4000)[0].f1_macro
    assert f1_macro.mean() == pytest.approx(np.mean(plain), abs=0.005)
    assert f1_macro.std() == pytest.approx(np.std(plain), rel=0.1)


@settings(deadline=None, max_examples=60)
@given(draw_predictions())
def test_scores_of_resamples_are_in_range_and_repeatable(case: Case) -> None:
    true, first, second, labels = (np.asarray(column) for column in case)
    drawn = resample(true, [first, second], int(labels), resamples=50, seed=7)
    again = resample(true, [first, second], int(labels), resamples=50, seed=7)
    for scores, same_scores in zip(drawn, again, strict=True):
        assert scores.accuracy.tolist() == same_scores.accuracy.tolist()
        assert ((scores.accuracy >= 0) & (scores.accuracy <= 1)).all()
        assert ((scores.f1_macro >= 0) & (scores.f1_macro <= 1)).all()
    if (first == second).all():
        assert (drawn[0].accuracy == drawn[1].accuracy).all()


def test_models_are_resampled_on_the_same_rows() -> None:
    """Two models that differ on one row in a hundred differ by a few of them in any resample, not by chance besides."""
    true = np.zeros(100, dtype=np.int64)
    first = (np.arange(100) < 30).astype(np.int64)
    second = (np.arange(100) < 31).astype(np.int64)
    one, other = resample(true, [first, second], 2)
    assert (one.accuracy >= other.accuracy).all()
    assert interval(one.accuracy - other.accuracy).high <= 0.04


def test_intervals_of_a_single_row_and_of_many_labels() -> None:
    one = np.array([2])
    assert interval(resample(one, [one], 3)[0].f1_macro) == Interval(1.0, 1.0)
    rng = np.random.default_rng(0)
    true = rng.integers(0, 200, 100_000)
    wrong = (true + rng.integers(1, 4, 100_000)) % 200  # mistaken for one of its neighbours
    answers = np.where(rng.random(100_000) < 0.9, true, wrong)
    bounds = interval(resample(true, [answers], 200)[0].accuracy)
    assert bounds.low < (answers == true).mean() < bounds.high


def test_the_lower_bound_of_a_perfect_accuracy() -> None:
    assert accuracy_lower_bound(30) == pytest.approx(0.8843, abs=1e-4)  # Clopper and Pearson's table
    assert accuracy_lower_bound(1) == pytest.approx(0.025)


def test_mcnemar_of_a_worked_example() -> None:
    # Right alone: the first on 41 rows, the second on 22. Exactly, p = 2 * P(X <= 22) of 63 coins.
    true = np.zeros(100, dtype=np.int64)
    first, second = np.zeros(100, dtype=np.int64), np.zeros(100, dtype=np.int64)
    second[:41] = 1
    first[41:63] = 1
    result = mcnemar(true, first, second)
    assert (result.only_first, result.only_second) == (41, 22)
    assert result.p_value == pytest.approx(2 * sum(math.comb(63, k) for k in range(23)) / 2**63)


@settings(deadline=None)
@given(draw_predictions())
def test_mcnemar_is_symmetric(case: Case) -> None:
    true, first, second, _ = (np.asarray(column) for column in case)
    one, other = mcnemar(true, first, second), mcnemar(true, second, first)
    assert (one.only_first, one.only_second) == (other.only_second, other.only_first)
    assert one.p_value == pytest.approx(other.p_value)
    assert mcnemar(true, first, first).p_value == 1


@pytest.mark.parametrize(
    ("rows", "right", "doubted"), [(9, 8, False), (200, 190, True), (200, 150, False), (12, 12, False)]
)
def test_only_a_significantly_good_model_doubts_labels(rows: int, right: int, doubted: bool) -> None:
    labels = [place % 2 for place in range(rows)]
    answers = [label if place < right else 1 - label for place, label in enumerate(labels)]
    scores = score(np.eye(2, dtype=np.float32)[answers], labels, ("a", "b"))
    assert (train.describe_suspects(3, scores) is not None) is doubted
    assert train.describe_suspects(0, scores) is None
