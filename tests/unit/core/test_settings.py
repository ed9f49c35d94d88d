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
    [
        (1, 4, 60), (28, 4, 9), (32, 4, 8), (102, 12, 7), (256, 32, 8), (384, 32, 5), (4_800, 32, 5), (7_500, 50, 5),
        (9_600, 64, 5), (1_000_000, 64, 5),
    ],
)  # fmt: skip
def test_few_rows_get_small_batches_and_more_epochs_and_many_rows_large_batches(
    rows: int, batch: int, epochs: int
) -> None:
    settings = TrainSettings()
    assert (settings.choose_batch_size(rows), settings.choose_epochs(rows)) == (batch, epochs)
    explicit = TrainSettings(epochs=2, batch_size=7)
    assert (explicit.choose_batch_size(rows), explicit.choose_epochs(rows)) == (7, 2)


@pytest.mark.parametrize(("rows", "batch", "epochs"), [(28, 16, 10), (115, 32, 5), (256, 32, 3), (10_000, 32, 1)])
def test_pairs_of_texts_are_read_in_larger_batches(rows: int, batch: int, epochs: int) -> None:
    settings = TrainSettings(tune="contrastive")
    assert (settings.choose_batch_size(rows), settings.choose_epochs(rows)) == (batch, epochs)


@pytest.mark.parametrize("tune", ["contrastive", "lora", "head"])
def test_large_batches_are_for_tuning_all_layers(tune: str) -> None:
    settings = TrainSettings(tune=tune)
    assert settings.choose_batch_size(1_000_000) == 32
    assert settings.choose_learning_rate(1_000_000) == settings.choose_learning_rate(1)


def test_the_learning_rate_grows_with_the_square_root_of_large_batches() -> None:
    usual = TrainSettings().choose_learning_rate(4_800)
    assert TrainSettings().choose_learning_rate(28) == usual
    assert TrainSettings().choose_learning_rate(1_000_000) == pytest.approx(usual * 2**0.5)
    assert TrainSettings(batch_size=128).choose_learning_rate(28) == pytest.approx(usual * 2)
    assert TrainSettings(learning_rate=1e-5).choose_learning_rate(1_000_000) == 1e-5
