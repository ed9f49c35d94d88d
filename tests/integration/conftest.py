"""A served tiny model, and a container engine where there is one."""

import os
import shutil
import threading
from collections.abc import Iterator
from typing import cast

import pytest

import newsbert
from newsbert.bundle.bundle import Bundle
from newsbert.core.settings import ImageSettings, ServeSettings
from newsbert.serving import archive, local
from newsbert.serving.native import supervisor as native
from newsbert.serving.torchserve import process, supervisor
from tests.support.calls import free_port
from tests.support.images import Images
from tests.support.servers import Registry, tracking_server
from tests.support.serving import serve, start

__all__ = ["serve", "start"]


@pytest.fixture(scope="module")
def server(
    trained: tuple[newsbert.TrainResult, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[process.Server]:
    """A TorchServe that serves the tiny model as TinyModel/1."""
    settings = ServeSettings(port=0)
    store = tmp_path_factory.mktemp("store")
    made = archive.write(Bundle.read(trained[0].bundle), store, "TinyModel/1", settings)
    with supervisor.serving(made, settings, tmp_path_factory.mktemp("run"), print) as running:
        assert running.wait_ready(60, threading.Event())
        yield running


@pytest.fixture(scope="module")
def native_server(
    trained: tuple[newsbert.TrainResult, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[native.Server]:
    """A native server that serves the tiny model as TinyModel/1."""
    bundle = Bundle.read(trained[0].bundle)
    with native.serving(bundle, "TinyModel/1", ServeSettings(port=0), tmp_path_factory.mktemp("run"), print) as running:
        assert running.wait_ready(60, threading.Event())
        yield running


@pytest.fixture(scope="module", params=["server", "native_server"], ids=["torchserve", "native"])
def any_server(request: pytest.FixtureRequest) -> local.Server:
    """A server of either kind."""
    return cast("local.Server", request.getfixturevalue(request.param))


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tracking server for all tests."""
    with tracking_server(tmp_path_factory.mktemp("server"), free_port()) as url:
        yield url


@pytest.fixture(scope="session")
def tiny_image(images: Images) -> str:
    """The tiny model's serving image."""
    return images.serving.tag


@pytest.fixture(scope="session")
def registry(image_settings: ImageSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Registry"]:
    """A registry on the loopback address that the images are named after."""
    program = shutil.which("docker-registry") or shutil.which("registry")
    if program is None:
        if os.environ.get("NEWSBERT_REQUIRE_ENGINE"):
            pytest.fail("NEWSBERT_REQUIRE_ENGINE is set, and there is no docker-registry")
        pytest.skip("there is no docker-registry on this machine (Debian's package of that name)")
    running = Registry(program, image_settings.repository.partition("/")[0], tmp_path_factory.mktemp("registry"))
    running.start()
    yield running
    running.stop()
