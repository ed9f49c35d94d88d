"""Rows on the disk: what was written, and in how little memory."""

import re
from pathlib import Path

import numpy as np
import pytest

from newsbert.ragged import Ragged, RaggedWriter, Texts

ROWS, BYTES = 20_000, 8_192


def mapped_bytes() -> int:
    """Memory that pages of files have in this process."""
    found = re.search(r"RssFile:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


@pytest.fixture
def stored(tmp_path: Path) -> Ragged[np.uint8]:
    with RaggedWriter(tmp_path / "rows", np.uint8) as writer:
        writer.extend(f"{row:05}".encode() + bytes(BYTES - 5) for row in range(ROWS))
    return Ragged(tmp_path / "rows", np.uint8)


@pytest.mark.parametrize("order", ["as stored", "at random"])
def test_rows_that_are_read_leave_the_memory_again(stored: Ragged[np.uint8], order: str) -> None:
    rows = np.arange(ROWS)
    if order == "at random":
        np.random.default_rng(1).shuffle(rows)
    before, most = mapped_bytes(), 0
    for place, text in enumerate(Texts(stored, rows)):
        assert text[:5] == f"{rows[place]:05}"
        if place % 500 == 0:
            most = max(most, mapped_bytes() - before)
    assert most < ROWS * BYTES / 2


def test_a_row_that_is_held_is_still_what_it_was(stored: Ragged[np.uint8]) -> None:
    first = stored[0]
    for row in range(ROWS):
        assert len(stored[row]) == BYTES
    assert first[:5].tobytes() == b"00000"
