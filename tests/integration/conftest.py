"""A served tiny model, and a container engine where there is one."""

import os
import threading
from collections.abc import Iterator

import pytest

import newsbert
from newsbert import archive, torchserve
from newsbert.bundle import Bundle
from newsbert.config import ServeSettings
from newsbert.engine import Engine
from newsbert.errors import EngineError

PLANTED_SECRET = "planted-secret-7f3a.invalid"
"""Stands in pip's options of the test image's build; must not be found in the image."""


@pytest.fixture(scope="module")
def server(
    trained: tuple[newsbert.TrainResult, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[torchserve.Server]:
    """A TorchServe that serves the tiny model as TinyModel/1."""
    settings = ServeSettings(port=0)
    store = tmp_path_factory.mktemp("store")
    made = archive.write(Bundle.read(trained[0].bundle), store, "TinyModel/1", settings)
    with torchserve.serving(made, settings, tmp_path_factory.mktemp("run"), print) as running:
        assert running.wait_ready(60, threading.Event())
        yield running


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The container engine; without one the test is skipped, or fails where one is required."""
    try:
        return Engine()
    except EngineError as error:
        if os.environ.get("NEWSBERT_REQUIRE_ENGINE"):
            pytest.fail(f"NEWSBERT_REQUIRE_ENGINE is set: {error.message}")
        pytest.skip(f"{error.message} (start an engine to run this)")


@pytest.fixture(scope="session")
def tiny_image(
    engine: Engine, trained: tuple[newsbert.TrainResult, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The tiny model's serving image, built once a session."""
    from newsbert import containers
    from newsbert.config import ImageSettings

    result, uri = trained
    assert result.version is not None
    settings = ImageSettings(repository=f"newsbert-test-{os.getpid()}", pip_options=(f"trusted-host={PLANTED_SECRET}",))
    with containers.contexts(str(result.version), settings, uri) as rendered:
        for context, reuse in zip(rendered, (True, False), strict=True):
            containers.build(context, settings, print, reuse=reuse)
        yield rendered[1].tag
    for context in reversed(rendered):
        engine.remove_image(context.tag)
