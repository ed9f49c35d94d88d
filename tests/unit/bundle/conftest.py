"""Fixtures of the tests of signatures."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.signed import write_bundle, write_key


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    for name in ("release", "other"):
        write_key(directory, name)
    return directory


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "model").path


@pytest.fixture
def trust(keys: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def trust(*names: str) -> None:
        monkeypatch.setenv("NEWSBERT_TRUSTED_KEYS", ",".join(str(keys / f"{name}.pub") for name in names))

    return trust
