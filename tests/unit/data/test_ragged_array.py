"""Rows on the disk: what was written, and in how little memory."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from newsbert.data.ragged_array import RaggedArray, RaggedWriter, TextColumn
from newsbert.errors import NewsbertError

ROWS, BYTES = 20_000, 8_192


def measure_mapped_bytes() -> int:
    """Memory that pages of files have in this process."""
    sizes_kb = re.findall(r"Rss(?:File|Shmem):\s+(\d+) kB", Path("/proc/self/status").read_text())
    return sum(map(int, sizes_kb)) * 1024


@pytest.fixture
def stored(tmp_path: Path) -> RaggedArray[np.uint8]:
    with RaggedWriter(tmp_path / "rows", np.uint8) as writer:
        for row in range(ROWS):
            writer.extend([f"{row:05}".encode() + bytes(BYTES - 5)])
    return RaggedArray(tmp_path / "rows", np.uint8)


@pytest.mark.parametrize("order", ["as stored", "at random"])
def test_rows_that_were_read_do_not_stay_in_memory(stored: RaggedArray[np.uint8], order: str) -> None:
    rows = np.arange(ROWS)
    if order == "at random":
        np.random.default_rng(1).shuffle(rows)
    before, most = measure_mapped_bytes(), 0
    for place, text in enumerate(TextColumn(stored, rows)):
        assert text[:5] == f"{rows[place]:05}"
        if place % 500 == 0:
            most = max(most, measure_mapped_bytes() - before)
    assert most < ROWS * BYTES / 2


def test_a_truncated_file_is_an_error(stored: RaggedArray[np.uint8], tmp_path: Path) -> None:
    os.truncate(tmp_path / "rows" / "values.bin", ROWS * BYTES - 1)
    assert len(stored[0]) == BYTES
    with pytest.raises(NewsbertError, match="rows is not whole"):
        stored[ROWS - 1]


def test_adjacent_rows_are_read_at_once(tmp_path: Path) -> None:
    rows = [[1], [], [2, 3, 4], [5], []]
    with RaggedWriter(tmp_path / "rows", np.uint32) as writer:
        writer.extend(rows)
    stored = RaggedArray(tmp_path / "rows", np.uint32)
    for start in range(len(rows) + 1):
        for stop in range(start, len(rows) + 1):
            assert [row.tolist() for row in stored.read(start, stop)] == rows[start:stop]
