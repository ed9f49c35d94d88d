"""Mix and cascade: weights from likelihood, thresholds whose loss is bounded."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsbert.core.types import FloatArray, IntArray
from newsbert.evaluation.mixing import (
    Mix,
    bound_difference,
    choose_cascade_threshold,
    find_confident,
    fit_mix,
)

Z = 1.6449


def _draw(rows: int, quality: float, seed: int, labels: IntArray | None = None) -> tuple[FloatArray, IntArray]:
    """Return logarithms of probabilities for three labels, better the higher the quality, and the true ids."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, rows) if labels is None else labels
    logits = rng.normal(0, 1, (rows, 3)) + quality * np.eye(3)[truth]
    return (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32), truth


def test_of_two_classifiers_the_better_one_gets_more_weight() -> None:
    model, truth = _draw(2000, 3.0, 1)
    good, bad = (_draw(2000, quality, 2, truth)[0] for quality in (3.0, 0.3))
    with_good, with_bad = fit_mix(model, good, truth.tolist()), fit_mix(model, bad, truth.tolist())
    assert with_good is not None and with_bad is not None
    assert with_good.companion_weight / with_good.model_weight > 0.7
    assert with_bad.companion_weight / with_bad.model_weight < 0.3
    mixed = with_good.apply(model, good)
    assert (mixed.argmax(axis=1) == truth).mean() > (model.argmax(axis=1) == truth).mean() + 0.02
    assert np.allclose(mixed.sum(axis=1), 1, atol=1e-6)


def test_few_rows_hardly_change_the_usual_weights() -> None:
    model, truth = _draw(6, 3.0, 1)
    companion, _ = _draw(6, 2.0, 2, truth)
    mix = fit_mix(model, companion, truth.tolist())
    assert mix is not None
    assert 0.4 < mix.companion_weight / mix.model_weight < 0.9


def test_without_rows_the_weights_are_the_usual_ones() -> None:
    nothing = np.empty((0, 3), np.float32)
    mix = fit_mix(nothing, nothing, [])
    assert mix is not None
    assert mix.companion_weight / mix.model_weight == pytest.approx(0.6, rel=0.1)


def test_a_companion_that_makes_the_model_worse_is_left_out() -> None:
    # The model is right by a little everywhere, the companion is wrong by a lot.
    truth = np.arange(300) % 3
    model, companion = 0.01 * np.eye(3)[truth], 20 * np.eye(3)[(truth + 1) % 3]
    assert fit_mix(model.astype(np.float32), companion.astype(np.float32), truth.tolist()) is None


@pytest.mark.parametrize("rows", [1, 10, 1000, 100_000])
def test_without_a_difference_the_bound_depends_on_the_number_of_rows(rows: int) -> None:
    assert bound_difference(0, 0, rows) == pytest.approx(Z**2 / (rows + Z**2), rel=1e-6)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 1000))
def test_the_bound_is_above_the_difference_and_grows_with_the_losses(worse: int, better: int, others: int) -> None:
    rows = worse + better + others
    bound = bound_difference(worse, better, rows)
    assert (worse - better) / rows < bound <= 1
    assert bound_difference(worse + 1, better, rows + 1) > bound
    assert bound_difference(worse, better + 1, rows + 1) < bound


@pytest.mark.parametrize(("worse", "better"), [(0.002, 0.001), (0.01, 0.008), (0.004, 0.0), (0.05, 0.05)])
def test_the_bound_holds_for_19_of_20_samples(worse: float, better: float) -> None:
    rng = np.random.default_rng(1)
    counts = rng.multinomial(2000, [worse, better, 1 - worse - better], size=4000)
    holds = [bound_difference(int(first), int(second), 2000) >= worse - better for first, second, _ in counts]
    assert np.mean(holds) > 0.94


def _classify(answers: FloatArray) -> FloatArray:
    return np.asarray(np.log(answers / answers.sum(axis=1, keepdims=True)), np.float32)


def test_the_threshold_is_the_lowest_before_the_bound_is_exceeded() -> None:
    # The companion is right where its score is 0.9 or more, and wrong below; the mix is always right.
    scores = np.repeat([0.97, 0.9, 0.75], 1000)
    truth = np.zeros(3000, np.int64)
    wrong = scores < 0.8
    companion = np.stack([np.where(wrong, 1 - scores, scores), np.where(wrong, scores, 1 - scores)], axis=1)
    mixed = np.tile([0.99, 0.01], (3000, 1)).astype(np.float32)
    chosen = choose_cascade_threshold(mixed, _classify(companion), truth.tolist(), 0.3)
    assert chosen.threshold is not None
    assert 0.75 < chosen.threshold <= 0.9
    assert chosen.coverage == pytest.approx(2 / 3)
    assert 0 < chosen.loss <= 0.3


@pytest.mark.parametrize(("rows", "max_loss"), [(0, 0.3), (20, 0.3), (3000, 0.0)])
def test_rows_that_cannot_show_so_small_a_loss_give_no_threshold(rows: int, max_loss: float) -> None:
    companion = _classify(np.tile([0.99, 0.01], (rows, 1)).reshape(rows, 2))
    chosen = choose_cascade_threshold(np.exp(companion), companion, [0] * rows, max_loss)
    assert chosen.threshold is None
    assert chosen.coverage == 0


def test_scores_are_compared_with_six_decimals() -> None:
    logs = np.log(np.array([[0.9, 0.1], [0.8999999, 0.1000001], [0.89999, 0.10001]], np.float32))
    assert find_confident(logs, 0.9).tolist() == [True, True, False]
    assert find_confident(np.empty((0, 2), np.float32), 0.9).tolist() == []


def test_weights_of_one_and_zero_are_the_model() -> None:
    model, _ = _draw(50, 2.0, 1)
    companion, _ = _draw(50, 2.0, 2)
    assert np.allclose(Mix(1.0, 0.0).apply(model, companion), np.exp(model), atol=1e-6)
    pairs = itertools.pairwise(Mix(1.0, weight).apply(model, companion) for weight in (0.0, 0.5, 1.0))
    assert all(not np.allclose(first, second) for first, second in pairs)
