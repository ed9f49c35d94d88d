"""Settings are frozen, and choose the batch size and the epochs by the number of rows."""

import dataclasses

import pytest

from newsbert.core.config import resolve
from newsbert.core.settings import (
    TrainSettings,
)


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        resolve(TrainSettings).seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("rows", "batch", "epochs"),
    [(1, 4, 60), (28, 4, 9), (32, 4, 8), (102, 12, 7), (256, 32, 8), (384, 32, 5), (1_000_000, 32, 5)],
)
def test_few_rows_get_small_batches_and_more_epochs(rows: int, batch: int, epochs: int) -> None:
    settings = TrainSettings()
    assert (settings.rows_a_step(rows), settings.passes(rows)) == (batch, epochs)
    explicit = TrainSettings(epochs=2, batch_size=7)
    assert (explicit.rows_a_step(rows), explicit.passes(rows)) == (7, 2)


@pytest.mark.parametrize(("rows", "batch", "epochs"), [(28, 16, 10), (115, 32, 5), (256, 32, 3), (10_000, 32, 1)])
def test_pairs_of_texts_are_read_in_larger_batches(rows: int, batch: int, epochs: int) -> None:
    settings = TrainSettings(tune="contrastive")
    assert (settings.rows_a_step(rows), settings.passes(rows)) == (batch, epochs)
