"""What of the processor may be used."""

from pathlib import Path

import pytest

from newsbert.core import cpu


@pytest.mark.parametrize(
    ("content", "expected"),
    [("max 100000\n", None), ("50000 100000\n", 0.5), ("250000 100000\n", 2.5), ("", None), ("nonsense\n", None)],
)
def test_the_limit_of_a_container_is_read(tmp_path: Path, content: str, expected: float | None) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert cpu.read_limit(tmp_path) == expected


def test_the_limit_of_cgroup_v1_is_read(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("150000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cpu.read_limit(tmp_path) == 1.5
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert cpu.read_limit(tmp_path) is None


def test_without_a_limit_the_affinity_counts(tmp_path: Path) -> None:
    assert cpu.read_limit(tmp_path) is None
    assert cpu.cores() >= 1
