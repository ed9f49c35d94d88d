"""Which answers go to a person, against counting row by row in plain Python."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newsbert.core.types import FloatArray
from newsbert.evaluation.review_threshold import (
    ALL,
    NONE,
    PRECISIONS,
    ReviewStats,
    RiskCoverageCurve,
    choose_threshold,
    needs_review,
    review_stats,
    thresholds,
)
from newsbert.inference.prediction import Prediction

relaxed = settings(deadline=None, max_examples=150)


def _make_rows(*answers: tuple[float, bool]) -> tuple[FloatArray, list[int]]:
    """Probabilities of two labels with these scores (of 0.5 or more), and true ids by which they are right or not."""
    probabilities = np.array([[score, 1 - score] for score, _ in answers], np.float32).reshape(-1, 2)
    return probabilities, [0 if right else 1 for _, right in answers]


def _compute_wilson(right: int, rows: int) -> float:
    """The lower bound at one standard error in Wilson's paper: the root of (p - accuracy)² = p (1 - p) / rows."""
    accuracy = right / rows
    a, b, c = 1 + 1 / rows, -(2 * accuracy + 1 / rows), accuracy * accuracy
    return (-b - math.sqrt(b * b - 4 * a * c)) / (2 * a)


answers = st.lists(st.tuples(st.sampled_from([0.5, 0.6, 0.75, 0.9, 0.999999, 1.0]), st.booleans()), max_size=60)
several = st.lists(st.tuples(st.floats(0.51, 0.99), st.just(True) | st.booleans()), max_size=60)


@relaxed
@given(answers | several, st.floats(0, 1))
def test_the_threshold_is_the_lowest_with_the_target_accuracy(rows: list[tuple[float, bool]], precision: float) -> None:
    probabilities, labels = _make_rows(*rows)
    scores = [round(score, 6) for score in probabilities.max(axis=1).tolist()]

    def reaches_target(below: float) -> bool:
        unflagged = [right for score, (_, right) in zip(scores, rows, strict=True) if score >= below]
        return bool(unflagged) and _compute_wilson(sum(unflagged), len(unflagged)) >= precision - 1e-9

    threshold = choose_threshold(probabilities, labels, precision)
    if precision == 0:
        assert threshold == NONE
    elif threshold == ALL:
        assert not any(_exceeds_wilson(scores, rows, other, precision) for other in set(scores) - {1.0})
    else:
        assert threshold in scores
        assert reaches_target(threshold)
        lower = [other for other in set(scores) if other < threshold]
        assert not any(_exceeds_wilson(scores, rows, other, precision) for other in lower)


def _exceeds_wilson(scores: list[float], rows: list[tuple[float, bool]], below: float, precision: float) -> bool:
    unflagged = [right for score, (_, right) in zip(scores, rows, strict=True) if score >= below]
    return _compute_wilson(sum(unflagged), len(unflagged)) >= precision + 1e-9


def test_a_target_that_is_just_reached_is_reached() -> None:
    assert choose_threshold(*_make_rows((0.9, True), (0.8, False)), 0.5, margin=0) == pytest.approx(0.8)
    assert choose_threshold(*_make_rows((0.9, True), (0.8, False)), 0.51, margin=0) == pytest.approx(0.9)


def test_a_worked_example() -> None:
    # 40 right ones above a score of 0.8, and below it every second wrong.
    rows = _make_rows(*[(0.9, True)] * 30, *[(0.8, True)] * 10, *[(0.6, True), (0.7, False)] * 10)
    assert choose_threshold(*rows, 0.95) == 0.8
    assert review_stats(*rows, 0.8) == ReviewStats(1 - 40 / 60, 1.0)
    assert choose_threshold(*rows, 0.5) == 0.6
    assert choose_threshold(*rows, 0.99) == ALL
    curve = RiskCoverageCurve.of(*rows)
    assert (curve.below.tolist(), curve.num_answered.tolist(), curve.num_correct.tolist()) == (
        [0.9, 0.8, 0.7, 0.6], [30, 40, 50, 60], [30, 40, 40, 50],
    )  # fmt: skip


def test_equal_scores_are_one_point() -> None:
    rows = _make_rows(*[(0.9, True)] * 50, *[(0.8, True)] * 50, *[(0.8, False)] * 10)
    assert choose_threshold(*rows, 0.95) == 0.9
    # What differs behind the sixth decimal is equal.
    rows = _make_rows(*[(0.9, True)] * 50, *[(0.8000001, True)] * 50, *[(0.7999998, False)] * 10)
    assert choose_threshold(*rows, 0.95) == 0.9


@pytest.mark.parametrize(("rows", "threshold"), [(0, ALL), (18, ALL), (19, 0.9), (500, 0.9)])
def test_few_correct_rows_are_not_enough(rows: int, threshold: float) -> None:
    assert choose_threshold(*_make_rows(*[(0.9, True)] * rows), 0.95) == threshold


def test_a_score_below_all_known_scores_is_flagged() -> None:
    below = choose_threshold(*_make_rows(*[(0.9, True), (0.7, True)] * 50), 0.95)
    assert needs_review([0.9, 0.7, 0.337], below).tolist() == [False, False, True]


def test_an_unreachable_target_flags_everything() -> None:
    rows = _make_rows(*[(0.9, True), (0.9, False)] * 50)
    assert choose_threshold(*rows, 0.95) == ALL
    assert review_stats(*rows, ALL) == ReviewStats(1.0, None)
    certain = _make_rows(*[(1.0, True)] * 3, *[(1.0, False)] * 3)
    assert review_stats(*certain, ALL) == ReviewStats(1.0, None)
    assert review_stats(*certain, NONE) == ReviewStats(0.0, 0.5)
    assert review_stats(*_make_rows(), 0.5) == ReviewStats(0.0, None)


def test_the_target_accuracy_holds_on_other_rows_in_most_trainings() -> None:
    """Of rows as calibrated models have them; without the margin it would in fewer than half."""
    rng = np.random.default_rng(7)

    def draw(count: int) -> tuple[FloatArray, list[int]]:
        scores = 0.5 + 0.5 * rng.beta(4, 0.6, count)
        return _make_rows(*zip(scores.tolist(), (rng.random(count) < scores).tolist(), strict=True))

    others = draw(50_000)
    held = [review_stats(*others, choose_threshold(*draw(500), 0.95)).accuracy for _ in range(60)]
    assert np.mean([accuracy is None or accuracy >= 0.95 for accuracy in held]) > 0.7
    assert max(accuracy for accuracy in held if accuracy) < 0.99  # nor does it send all that is doubtful at all


def test_the_chosen_threshold_comes_first() -> None:
    validation, test = (
        _make_rows(*[(0.9, True)] * 50, *[(0.6, False)] * 50),
        _make_rows((0.9, True), (0.8, False), (0.5, True)),
    )
    first, *others = thresholds(validation, test, 0.97)
    assert (first.precision, first.below, first.validation) == (0.97, 0.9, ReviewStats(0.5, 1.0))
    assert first.test == ReviewStats(1 - 1 / 3, 1.0)
    assert [other.precision for other in others] == list(PRECISIONS)
    assert [other.below for other in others] == [0.9, 0.9, 0.9, ALL]
    fixed, *same = thresholds(validation, test, 0.97, 0.7)
    assert (fixed.precision, fixed.below, fixed.test) == (None, 0.7, ReviewStats(1 - 2 / 3, 0.5))
    assert same == others


@relaxed
@given(st.floats(0, 1, width=32), st.floats(0, 1) | st.sampled_from([0.0, 1.0, 0.5]))
def test_review_follows_from_the_shown_score(score: float, below: float) -> None:
    answer = Prediction.of(["a", "b"], [score, 0.0], below).to_dict()
    assert answer["review"] is (float(str(answer["score"])) < below or below == 1)
    assert bool(needs_review(score, below)) is answer["review"]


@pytest.mark.parametrize("score", [0.5078125, 0.81, 0.8100004, 0.8099996, 1.0, 0.9999999])
def test_a_rounded_score_is_not_below_itself(score: float) -> None:
    shown = round(float(np.float32(score)), 6)
    assert not needs_review(np.float32(score), shown if shown < 1 else 0.999999)
    assert needs_review(np.float32(score), min(1.0, shown + 1e-6))
