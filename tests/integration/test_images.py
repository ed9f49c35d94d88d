"""Building images: what is said when it cannot be done, and what is not in them when it can."""

import json
import threading
from collections.abc import Iterator

import pytest

import newsbert
from newsbert import containers
from newsbert.bundle import Bundle
from newsbert.config import ServeSettings
from newsbert.engine import Engine
from tests.conftest import Cli
from tests.integration.conftest import PLANTED_SECRET


def test_a_dry_run_needs_no_engine_and_builds_nothing(bundle: Bundle, cli: Cli) -> None:
    done = cli("build-image", bundle.path, "--dry-run", "--json", DOCKER_HOST="unix:///nowhere/docker.sock")
    assert done.returncode == 0, done.stderr
    base, serving = json.loads(done.stdout)["images"]
    assert base["tag"].startswith(f"newsbert-base:{newsbert.__version__}-")
    assert "FROM ${ROOT_IMAGE}" in base["Dockerfile"]
    assert serving["build_args"]["BASE_IMAGE"] == base["tag"]
    assert set(serving["files"]) == {
        "Dockerfile", "pip.conf", "requirements.txt", "torch_standin.py", "news_classification.mar",
    }  # fmt: skip


@pytest.mark.parametrize("command", [["build-image"], ["serve", "container"]])
def test_without_an_engine_it_says_so(trained: tuple[newsbert.TrainResult, str], cli: Cli, command: list[str]) -> None:
    done = cli(*command, "TinyModel/1", "--tracking-uri", trained[1], DOCKER_HOST="unix:///nowhere/docker.sock")
    assert done.returncode == 1
    assert "Error: no container engine answers" in done.stderr
    assert "DOCKER_HOST" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.engine
def test_a_root_image_that_cannot_be_had_names_the_way_out(engine: Engine, bundle: Bundle, cli: Cli) -> None:
    done = cli("build-image", bundle.path, "--root-image", "127.0.0.1:9/no/such-python:3.11")
    assert done.returncode == 1
    assert "Error: building newsbert-base" in done.stderr
    assert "--root-image" in done.stderr.splitlines()[-1]


@pytest.mark.engine
def test_an_image_that_was_not_built_names_the_command(
    engine: Engine, trained: tuple[newsbert.TrainResult, str], cli: Cli
) -> None:
    done = cli("serve", "container", "TinyModel/1", "--repository", "nobody", "--tracking-uri", trained[1])
    assert done.returncode == 1
    assert "Hint: newsbert build-image TinyModel/1" in done.stderr


@pytest.mark.engine
def test_pip_options_are_in_no_layer_and_no_history(engine: Engine, tiny_image: str) -> None:
    import docker

    image = docker.from_env().images.get(tiny_image)
    assert PLANTED_SECRET not in json.dumps([image.attrs, image.history()])
    # Layers are plain tar files inside what `docker save` writes, so their content can be searched as bytes.
    assert not _holds(image.save(), PLANTED_SECRET.encode())
    assert _holds(image.save(), b"TinyModel/1")  # the search does find what is there


def _holds(chunks: Iterator[bytes], wanted: bytes) -> bool:
    tail = b""
    for chunk in chunks:
        if wanted in tail + chunk:
            return True
        tail = chunk[-len(wanted) :]
    return False


@pytest.mark.engine
def test_the_container_runs_as_nobody_special_and_stops_on_sigterm(tiny_image: str) -> None:
    import docker

    with containers.serving(tiny_image, ServeSettings(port=0), threading.Event(), print) as running:
        assert running is not None
        container = docker.from_env().containers.get(running.id)
        assert container.exec_run(["id", "-u"]).output.strip() == b"10001"
        assert container.exec_run(["python", "-c", "import torch; torch.nn"]).exit_code == 1  # a stand-in, no torch
        container.stop(timeout=20)
        container.reload()
        assert container.attrs["State"]["ExitCode"] == 0
