"""Tables of labelled rows for tests, and what loading them gives."""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from newsbert.data.dataset import Dataset, Split, load_dataset
from newsbert.errors import DataError, NewsbertError
from tests.support.rows import encode

relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
AG_NEWS = ("World", "Sports", "Business", "Sci/Tech")
Table = Sequence[dict[str, Any]]


def write(file: Path, table: Table) -> str:
    """Write rows in the format of the file's name; return the path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encode(file.name, table))
    return str(file)


def load_table(table: Table, name: str = "rows.jsonl", **options: Any) -> Dataset:
    with tempfile.TemporaryDirectory() as directory:
        return load_dataset(write(Path(directory) / name, table), **options)


def labelled(labels: Iterable[Any], per_label: int = 5, text: str = "text") -> list[dict[str, Any]]:
    """Make `per_label` rows for every label, all texts different."""
    return [{text: f"row {n} of {i}", "label": label} for n in range(per_label) for i, label in enumerate(labels)]


def pairs(dataset: Dataset, *splits: str) -> list[tuple[str, str]]:
    """(text, label name) of all rows, or of those of some splits."""
    chosen: list[Split] = [getattr(dataset, split) for split in splits or ("train", "validation", "test")]
    return [
        (text, dataset.label_names[label])
        for split in chosen
        for text, label in zip(split.texts, split.labels, strict=True)
    ]


def expected(table: Table, label: str = "label") -> list[tuple[str, str]]:
    return sorted((row["text"], str(row[label])) for row in table)


def refused(table: Table, *words: str, kind: type[NewsbertError] = DataError, **options: Any) -> NewsbertError:
    with pytest.raises(kind) as caught:
        load_table(table, **options)
    for word in words:
        assert word in caught.value.message
    assert caught.value.hint
    return caught.value
