"""Rows of a training, and its settings with absolute paths."""

import dataclasses
from pathlib import Path
from typing import Any

from newsbert.core.settings import TrainSettings
from newsbert.data.dataset import Dataset, load_dataset
from newsbert.errors import UsageError


def load_rows(settings: TrainSettings) -> Dataset:
    """Load the rows of a training.

    Raises:
        NewsbertError: If they cannot be used.
    """
    if settings.unlabelled and settings.companion == "none":
        raise UsageError(
            "--unlabelled and --companion none exclude each other: only a companion learns from these texts",
            "leave one of them out",
        )
    dataset = load_dataset(
        settings.data,
        labels=settings.labels,
        text_column=settings.text_column,
        label_column=settings.label_column,
        samples=settings.max_train_samples,
        seed=settings.seed,
    )
    return dataset.add_unlabelled(Path(settings.unlabelled).expanduser()) if settings.unlabelled else dataset


def make_paths_absolute(settings: TrainSettings) -> dict[str, Any]:
    """Return the settings with paths that are valid in any working directory."""
    values = dataclasses.asdict(settings)
    paths = {name: Path(values[name]).expanduser() for name in ("data", "base_model", "unlabelled") if values[name]}
    return values | {name: str(path.absolute()) for name, path in paths.items() if path.exists()}
