"""Sketches: exact for few texts, an estimate for many, and never out of what is no sketch."""

from pathlib import Path

import pytest

from newsbert.bundle import row_sketch
from newsbert.errors import ModelError


def test_the_count_of_few_texts_is_exact(tmp_path: Path) -> None:
    file = tmp_path / "sketch"
    row_sketch.write((f"text {number}" for number in range(row_sketch.SIZE - 1)), file)
    assert row_sketch.count_known([f"text {number}" for number in range(-100, 50)], file) == 50
    row_sketch.write([], file)
    assert row_sketch.count_known(["text 1"], file) == 0
    assert row_sketch.count_known([], file) == 0


def test_the_count_of_many_texts_is_an_estimate_in_bounded_space(tmp_path: Path) -> None:
    file = tmp_path / "sketch"
    row_sketch.write((f"text {number}" for number in range(250_000)), file)
    assert file.stat().st_size == 8 * row_sketch.SIZE
    assert row_sketch.count_known([f"text {number}" for number in range(10_000)], file) == 10_000
    assert row_sketch.count_known([f"other {number}" for number in range(10_000)], file) == 0
    half = row_sketch.count_known([f"text {number}" for number in range(245_000, 255_000)], file)
    assert 4_000 < half < 6_000  # some 655 are sampled: five standard deviations


@pytest.mark.parametrize("content", [b"1234567", bytes(8 * row_sketch.SIZE + 8)])
def test_attack_an_invalid_sketch_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "sketch"
    file.write_bytes(content)
    with pytest.raises(ModelError, match="is no sketch"):
        row_sketch.count_known(["text"], file)
