"""newsbert.toml as tests write it, and what is refused of settings."""

from pathlib import Path
from typing import Any

import pytest

from newsbert.core.config import resolve
from newsbert.core.settings import (
    ImageSettings,
    ServeSettings,
    TrackingSettings,
    TrainSettings,
)
from newsbert.errors import UsageError

SECTIONS = (TrackingSettings, TrainSettings, ServeSettings, ImageSettings)


def write_config(content: str) -> None:
    """Write the test's newsbert.toml."""
    Path("newsbert.toml").write_text(content, encoding="utf-8")


def get_refusal(section: Any, **flags: Any) -> str:
    """Return the message of the error that resolving settings ends in, which has a hint."""
    with pytest.raises(UsageError) as caught:
        resolve(section, **flags)
    assert caught.value.hint
    return caught.value.message
