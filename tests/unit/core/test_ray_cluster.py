"""What is decided about workers before Ray has a part in it."""

from pathlib import Path

import pytest

from newsbert.core import config
from newsbert.core.ray_cluster import share
from newsbert.core.settings import RaySettings


@pytest.mark.parametrize(
    ("cores", "workers", "expected"),
    [
        ([2], 2, (1, 2)),
        ([4], 1, (4, 1)),
        ([0, 4, 4, 4, 4], 8, (2, 8)),  # a head that computes nothing
        ([8, 3, 3, 3], 4, (3, 4)),  # a worker is on one node: 17 cores are not four times four
        ([3, 3], 3, (1, 3)),
        ([2, 1], 8, (1, 3)),
        ([0], 2, (1, 0)),
        ([], 2, (1, 0)),
    ],
)
def test_workers_share_the_cores_of_the_nodes(cores: list[int], workers: int, expected: tuple[int, int]) -> None:
    assert share(cores, workers) == expected


def test_ray_settings_come_from_flags_environment_and_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert config.resolve(RaySettings) == RaySettings(1, None)
    Path("newsbert.toml").write_text('[ray]\nworkers = 3\naddress = "head:6379"\n', encoding="utf-8")
    assert config.resolve(RaySettings) == RaySettings(3, "head:6379")
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setenv("NEWSBERT_RAY_WORKERS", "4")
    assert config.resolve(RaySettings) == RaySettings(4, "auto")
    assert config.resolve(RaySettings, workers=5, address="other:1") == RaySettings(5, "other:1")
