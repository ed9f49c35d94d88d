"""The three images of the tiny model, built once a session on a real engine: fixtures, which `conftest.py` takes."""

import contextlib
import io
import json
import os
import socket
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import newsbert
from newsbert.core.settings import ImageSettings
from newsbert.errors import EngineError
from newsbert.images import build
from newsbert.images.build import BuiltImage
from newsbert.images.engine.engine import Engine
from tests.support.shared import shared

PLANTED_SECRET = "planted7f3aSecret"
"""Stands in pip's options and in the environment of the images' build; must not be in an image."""

SECRET_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN")


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
def image_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageSettings]:
    """Settings for builds under names of this run's own, packages from where this machine has them.

    The names are those of a registry on loopback, so that what is built can be pushed there.
    """

    def choose(_: Path) -> ImageSettings:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = os.environ.get("NEWSBERT_TEST_PIP_OPTIONS", "")
        hosts = os.environ.get("NEWSBERT_TEST_EXTRA_HOSTS", "")
        planted = f"find-links=http://somebody:{PLANTED_SECRET}@127.0.0.1:9/wheels"
        return ImageSettings(
            repository=f"127.0.0.1:{port}/newsbert-test",
            pip_options=(*filter(None, options.split(",")), planted, "retries=0"),
            extra_hosts=tuple(filter(None, hosts.split(","))),
            torch_index="" if options else ImageSettings.torch_index,
        )

    with shared(tmp_path_factory, "image-settings", choose) as settings:
        yield settings


def without_secret(settings: ImageSettings) -> ImageSettings:
    """The same without the planted pip option: a build that may use the engine's cache of another build."""
    return replace(
        settings, pip_options=tuple(option for option in settings.pip_options if PLANTED_SECRET not in option)
    )


@dataclass(frozen=True)
class Images:
    """The three images of the tiny model, in the order they are built, and the stages of theirs on the engine."""

    base: BuiltImage
    trainer: BuiltImage
    serving: BuiltImage
    stages: frozenset[str]


@pytest.fixture(scope="session")
def images(
    engine: Engine,
    trained: tuple[newsbert.TrainResult, str],
    image_settings: ImageSettings,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Images]:
    """The tiny model's images, built once a run in an environment full of credentials."""
    result, uri = trained

    def make(_: Path) -> Images:
        before = stages()
        with pytest.MonkeyPatch.context() as patch:
            for name in SECRET_VARIABLES:
                patch.setenv(name, PLANTED_SECRET)
            with build.contexts(str(result.version), "serving", image_settings, uri) as plan:
                built = [build.build(context, image_settings, print) for context in plan.contexts]
            assert plan.located is not None
            assert build.record(plan.located, built[-1], uri) == []
        base, trainer, serving = built
        return Images(base, trainer, serving, stages() - before)

    def remove(built: Images) -> None:
        for image in (built.serving, built.trainer, built.base):
            for name in {image.tag, *image.aliases}:
                remove_image(name)

    with shared(tmp_path_factory, "images", make, remove) as built:
        yield built


def stages() -> frozenset[str]:
    """Ids of the images that builds on this engine have left of their stages: killed builds of others too."""
    import docker

    with contextlib.closing(docker.from_env()) as client:
        return frozenset(str(image.id) for image in client.images.list(all=True, filters={"label": "newsbert.stage"}))


def import_image(tag: str, labels: Mapping[str, str]) -> str:
    """Make an image that holds nothing but its labels; return its tag."""
    import docker

    empty = io.BytesIO()
    with tarfile.open(fileobj=empty, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("empty"))
    repository, _, name = tag.rpartition(":")
    changes = [f"LABEL {label}={json.dumps(value)}" for label, value in labels.items()]
    with contextlib.closing(docker.from_env()) as client:
        client.api.import_image_from_data(empty.getvalue(), repository=repository, tag=name, changes=changes)
    return tag


def remove_image(tag: str) -> None:
    """Take a name from an image, and the image away if it was the last one."""
    import docker

    with contextlib.closing(docker.from_env()) as client:
        client.images.remove(tag, force=True)


def image_toml(settings: ImageSettings) -> str:
    """The image settings as a newsbert.toml has them."""
    return (
        f'[image]\nrepository = "{settings.repository}"\npip_options = {json.dumps(settings.pip_options)}\n'
        f'extra_hosts = {json.dumps(settings.extra_hosts)}\ntorch_index = "{settings.torch_index}"\n'
    )
