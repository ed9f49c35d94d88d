"""Fitting of a companion."""

from pathlib import Path

import numpy as np
import pytest

from newsbert.core import environment
from newsbert.errors import NewsbertError
from newsbert.training.companion import Examples, fit
from tests.support.tiny_model import WORDS


def _draw(rows: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Return texts with words of one label, and words of all."""
    rng = np.random.default_rng(seed)
    own = list(WORDS.values())
    labels = rng.integers(0, len(own), rows)
    texts = [" ".join([*rng.choice(own[label], 2), *rng.choice(["the", "a", "of", "in"], 5)]) for label in labels]
    return texts, labels


def _score(texts: list[str], labels: np.ndarray, **more: object) -> float:
    companion = fit(Examples(texts, labels, 3, **more), 1)  # type: ignore[arg-type]
    unseen, truth = _draw(500, 99)
    return float((companion.predict(unseen).argmax(axis=1) == truth).mean())


@pytest.mark.parametrize("rows", [30, 300, 3000])
def test_it_learns_which_words_tell_labels_apart(rows: int) -> None:
    assert _score(*_draw(rows, 1)) > (0.9 if rows == 30 else 0.97)


def test_texts_without_labels_teach_a_model_s_answers() -> None:
    texts, labels = _draw(3, 1)
    unlabelled, truth = _draw(300, 2)
    taught = np.where(np.eye(3)[truth] == 1, 0.9, 0.05).astype(np.float32)
    assert _score(texts, labels) < 0.9
    assert _score(texts, labels, unlabelled=unlabelled, probabilities=taught) > 0.97


def test_the_same_rows_and_seed_give_the_same_bytes() -> None:
    texts, labels = _draw(400, 1)
    first, second, third = (fit(Examples(texts, labels, 3), seed) for seed in (1, 1, 2))
    assert first.info == second.info
    assert first.predict(texts).tobytes() == second.predict(texts).tobytes() != third.predict(texts).tobytes()


def test_many_labels_have_a_table_of_limited_size() -> None:
    rng = np.random.default_rng(1)
    texts = [" ".join(f"w{number}" for number in rng.integers(0, 10**6, 60)) for _ in range(1000)]
    companion = fit(Examples(texts, np.arange(1000) % 200, 200), 1)
    assert companion.size_bytes <= 16 * 2**20


def test_a_label_that_is_everywhere_the_same_is_learned() -> None:
    companion = fit(Examples(["a b", "c d"] * 100, np.zeros(200, np.int64), 2), 1)
    assert np.isfinite(companion.predict(["a", "z"])).all()


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NEWSBERT_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(NewsbertError, match="cannot be used") as caught:
        fit(Examples(["a b", "c d"], np.arange(2), 2), 1)
    assert "NEWSBERT_CACHE_DIR" in str(caught.value.hint)


def test_nothing_is_left_in_the_cache() -> None:
    fit(Examples(["a b", "c d"] * 100, np.arange(200) % 2, 2), 1)
    assert not [*(environment.cache_dir() / "terms").iterdir()]


def test_it_reports_its_progress() -> None:
    texts, labels = _draw(9000, 1)
    reports: list[tuple[int, int]] = []
    fit(Examples(texts, labels, 3), 1, lambda done, total: reports.append((done, total)))
    assert [done for done, _ in reports] == sorted({done for done, _ in reports})
    assert {total for _, total in reports} == {90_000}
    assert 0.8 * 90_000 < reports[-1][0] <= 90_000
