"""Windows of few rows, so that a small file has several."""

import pytest

from newsbert.inference.batch import readers


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of three rows."""
    monkeypatch.setattr(readers, "WINDOW_ROWS", 3)
    monkeypatch.setattr("newsbert.inference.batch.parquet.WINDOW_ROWS", 3)
