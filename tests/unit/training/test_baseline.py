"""The baseline that every model is shown beside, and the label errors that it helps to find."""

import string
from collections.abc import Sequence

import numpy as np
import pytest

import newsbert
from newsbert.bundle.bundle import Bundle
from newsbert.core.types import IntArray
from newsbert.data.dataset import Split
from newsbert.inference.runtime import load_runtime
from newsbert.training import baseline, label_issues
from newsbert.training.baseline import BaselineClassifier
from tests.support.tiny_model import LABELS


def _split(texts: Sequence[str], labels: Sequence[int] | IntArray) -> Split:
    return Split(texts, np.array(labels, np.int32), "")


def _rows(classes: int, per_class: int, seed: int = 0) -> Split:
    """Rows of three words, one of which is its class's own."""
    rng = np.random.default_rng(seed)
    common = ["".join(rng.choice(list(string.ascii_lowercase), 6)) for _ in range(50)]
    texts, labels = [], []
    for label in range(classes):
        for _ in range(per_class):
            texts.append(f"{rng.choice(common)} word{label} {rng.choice(common)}")
            labels.append(label)
    return _split(texts, labels)


def _names(classes: int) -> list[str]:
    return [f"class {label}" for label in range(classes)]


@pytest.mark.parametrize(("classes", "per_class"), [(2, 30), (3, 1), (4, 20), (200, 6)])
def test_it_learns_the_words_of_the_classes(classes: int, per_class: int) -> None:
    train = _rows(classes, per_class)
    fitted = BaselineClassifier(train, seed=1)
    result = fitted.score(_rows(classes, 3, seed=9) if per_class > 1 else train, _names(classes))
    assert result.scores.accuracy > 0.95
    assert result.rows == len(train)
    assert result.fit_seconds > 0
    assert result.texts_per_second > 0
    probabilities = fitted.predict(train.texts, classes)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_a_label_without_rows_gets_no_probability() -> None:
    train = _rows(2, 10)
    probabilities = BaselineClassifier(_split(train.texts, [2 * label for label in train.labels]), seed=1).predict(
        train.texts, 3
    )
    assert probabilities.shape == (20, 3)
    assert not probabilities[:, 1].any()


@pytest.mark.parametrize(
    "texts",
    [
        ["!!!", "???", "!!", "?"],  # no word
        ["aaa", "bbb", "ccc", "ddd"],  # no word twice
        ["株価が下落", "試合に勝利", "株価", "試合"],  # no blanks
        ["x" * 3_000_000, "y", "x" * 10, "y y"],  # one without end
    ],
)
def test_texts_of_any_kind_can_be_fitted(texts: list[str]) -> None:
    fitted = BaselineClassifier(_split(texts, [0, 1, 0, 1]), seed=1)
    assert fitted.predict(texts, 2).argmax(axis=1).tolist() == [0, 1, 0, 1]
    assert np.isfinite(fitted.predict(["", "🏆", "unknown"], 2)).all()
    assert label_issues.find_candidates(fitted, seed=1).tolist() == []


def test_the_same_seed_gives_the_same_answers() -> None:
    train = _rows(4, 40)
    one, same, other = (BaselineClassifier(train, seed, max_rows=50) for seed in (1, 1, 2))
    assert (one.predict(train.texts, 4) == same.predict(train.texts, 4)).all()
    assert one.rows.tolist() == same.rows.tolist() != other.rows.tolist()


def test_many_rows_are_sampled_with_every_label(monkeypatch: pytest.MonkeyPatch) -> None:
    frequent = _rows(2, 500)
    train = _split([*frequent.texts, "the only one"], [*frequent.labels, 2])
    fitted = BaselineClassifier(train, seed=1, max_rows=100)
    assert 90 <= len(fitted.rows) <= 100
    assert set(fitted.labels.tolist()) == {0, 1, 2}
    assert fitted.labels.tolist() == [train.labels[row] for row in fitted.rows]
    # Long texts are fewer, so that memory stays as it is.
    monkeypatch.setattr(baseline, "MAX_CHARACTERS", sum(map(len, train.texts)) // 20)
    assert len(BaselineClassifier(train, seed=1).rows) < 60


class _Mapped(Sequence[str]):
    """Rows that are read from elsewhere one by one."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, place):  # type: ignore[no-untyped-def]
        assert type(place) is int
        return self._texts[place]


def test_texts_need_not_be_a_list() -> None:
    train = _rows(3, 20)
    mapped = _split(_Mapped(train.texts), train.labels)
    fitted = BaselineClassifier(mapped, seed=1)
    expected = BaselineClassifier(train, seed=1).score(train, _names(3))
    assert fitted.score(mapped, _names(3)).scores.metrics == expected.scores.metrics


def test_planted_label_errors_are_doubted_and_few_others() -> None:
    train = _rows(4, 300)
    planted = np.random.default_rng(3).choice(len(train), 36, replace=False)
    labels = np.array(train.labels)
    labels[planted] = (labels[planted] + 1) % 4
    doubted = label_issues.find_candidates(BaselineClassifier(_split(train.texts, labels.tolist()), seed=1), seed=1)
    assert len(set(doubted.tolist()) & set(planted.tolist())) >= 30
    assert len(doubted) <= 41


def test_labels_with_few_rows_are_not_judged() -> None:
    assert label_issues.find_candidates(BaselineClassifier(_rows(3, 1), seed=1), seed=1).tolist() == []
    many, few = _rows(2, 30), _rows(6, 4)
    train = _split([*many.texts, *few.texts], [*many.labels, *few.labels])
    rare = {row for row, label in enumerate(train.labels) if label > 1}
    assert not rare & set(label_issues.find_candidates(BaselineClassifier(train, seed=1), seed=1).tolist())


def test_the_model_decides_whether_a_label_is_wrong(trained: tuple[newsbert.TrainResult, str]) -> None:
    runtime = load_runtime(Bundle.read(trained[0].bundle))
    texts = ["stocks market number 3", "goal team number 3", "minister border number 3", "profit bank number 3"]
    own = runtime.predict_prepared(texts).argmax(axis=1)
    labels = own.copy()
    labels[[0, 2]] = (labels[[0, 2]] + 1) % 3
    train = _split(["long " * 1000, *texts], [0, *labels.tolist()])
    suspects = label_issues.confirm(np.array([3, 1, 2, 4]), train, LABELS, runtime)
    assert {(suspect.text, suspect.label, suspect.model_label) for suspect in suspects} == {
        (texts[place], LABELS[labels[place]], LABELS[own[place]]) for place in (0, 2)
    }
    margins = [suspect.model_probability - suspect.label_probability for suspect in suspects]
    assert margins == sorted(margins, reverse=True)
    assert all(margin > 0 for margin in margins)
    assert label_issues.confirm(np.array([], dtype=np.int64), train, LABELS, runtime) == []
