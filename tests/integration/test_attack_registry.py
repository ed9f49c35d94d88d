"""A registry in which a colleague has written: it names ids, locations and digests, and none becomes more than that."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

import newsbert
from newsbert.api import models
from newsbert.bundle.bundle import Bundle
from newsbert.errors import NewsbertError
from newsbert.tracking import flavor
from newsbert.tracking.registry import ModelVersionRef
from newsbert.tracking.runs import DIGEST_TAG, MODEL_ID_TAG
from tests.support.calls import free_port
from tests.support.cli import Cli
from tests.support.servers import tracking_server

Trained = tuple[newsbert.TrainResult, str]
ELSEWHERE = "elsewhere"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server has its files."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(files: Path) -> Iterator[str]:
    with tracking_server(files, free_port()) as url:
        yield url


@pytest.fixture(scope="module")
def registered(server: str, trained: Trained) -> ModelVersionRef:
    """The tiny model on that server, as Victim/1."""
    return models.register(str(trained[0].bundle), "Victim", tracking_uri=server)


@pytest.fixture
def cache(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NEWSBERT_CACHE_DIR", str(tmp_path / "a" / "b" / "cache"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    return tmp_path / "a" / "b" / "cache"


@pytest.fixture
def client(server: str) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(server, registry_uri=server)


def _bundle_on(files: Path, client: mlflow.MlflowClient, run_id: str) -> Path:
    """Where the server has the files of a run's bundle."""
    model_id = client.get_run(run_id).data.tags[MODEL_ID_TAG]
    (bundle,) = files.glob(f"files/**/{model_id}/**/{flavor.BUNDLE_SUBPATH}")
    return bundle


@pytest.mark.parametrize(
    "doors", [["register", "--model-name", "Copy"], ["predict", "--model", "RUN", "goal"]], ids=["register", "predict"]
)
def test_attack_a_runs_tag_is_a_path(
    registered: ModelVersionRef, cache: Path, client: mlflow.MlflowClient, cli: Cli, tmp_path: Path, doors: list[str]
) -> None:
    model_id = client.get_run(registered.run_id).data.tags[MODEL_ID_TAG]
    client.set_tag(registered.run_id, MODEL_ID_TAG, f"{model_id}?x=/../../../../{ELSEWHERE}")
    try:
        done = cli(*(registered.run_id if word == "RUN" else word for word in doors))
    finally:
        client.set_tag(registered.run_id, MODEL_ID_TAG, model_id)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert f"the tag {MODEL_ID_TAG} of run {registered.run_id} is" in " ".join(done.stderr.split())
    assert not list(tmp_path.rglob(f"*{ELSEWHERE}*")) and "rm -r" not in done.stderr


def test_attack_files_that_are_not_what_was_registered_get_no_place(
    registered: ModelVersionRef, files: Path, cache: Path, client: mlflow.MlflowClient
) -> None:
    bundle = _bundle_on(files, client, registered.run_id)
    graph = bundle / "model.onnx"
    content = graph.read_bytes()
    graph.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        with pytest.raises(NewsbertError, match=r"model\.onnx was altered after training") as altered:
            newsbert.load("Victim/1")
    finally:
        graph.write_bytes(content)
    client.set_model_version_tag("Victim", "1", DIGEST_TAG, "0" * 64)
    try:
        with pytest.raises(NewsbertError, match="was altered after it was registered") as renamed:
            newsbert.load("Victim/1")
        client.set_model_version_tag("Victim", "1", DIGEST_TAG, "../../x")
        with pytest.raises(NewsbertError, match="which is not a SHA-256"):
            newsbert.load("Victim/1")
    finally:
        client.set_model_version_tag("Victim", "1", DIGEST_TAG, Bundle.read(bundle).digest)
    for error in (altered, renamed):
        assert error.value.hint and "rm " not in error.value.hint
    assert not list((cache / "models").iterdir())

    # What a server lists besides is not fetched, and the cache's own copy is mended when it is broken.
    (bundle / "evil.pth").write_text("import os")
    try:
        assert newsbert.load("Victim/1").predict(["goal team"])
        (cached,) = (cache / "models").iterdir()
        assert re.fullmatch(r"[0-9a-f]{64}", cached.name) and not (cached / "evil.pth").exists()
        (cached / "model.onnx").write_bytes(b"")
        assert newsbert.load("Victim/1").predict(["goal team"])
    finally:
        (bundle / "evil.pth").unlink()


def test_registering_the_latest_run_names_its_user(
    registered: ModelVersionRef, cache: Path, client: mlflow.MlflowClient, cli: Cli
) -> None:
    client.set_tag(registered.run_id, "mlflow.user", "eve\x1b[2J")
    done = cli("register", "--model-name", "Victim")
    assert done.returncode == 0, done.stderr
    assert f"run {registered.run_id} of 'eve\\x1b[2J'" in " ".join(done.stderr.split())
    assert done.stdout == "Victim/1\n"


def test_four_simultaneous_registrations_make_one_version(
    registered: ModelVersionRef,
    cache: Path,
    client: mlflow.MlflowClient,
    trained: Trained,
    preloaded_command: list[str],
    tmp_path: Path,
) -> None:
    copy = shutil.copytree(trained[0].bundle, tmp_path / "copy")
    for source, name in ((registered.run_id, "Four"), (str(copy), "Directory")):
        command = [*preloaded_command, "register", source, "--model-name", name, "--json"]
        processes = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)
        ]
        documents = []
        for process in processes:
            stdout, stderr = process.communicate(timeout=300)
            assert process.returncode == 0, stderr
            documents.append(json.loads(stdout))
        assert {document["model"] for document in documents} == {f"{name}/1"}
        assert sum(document["created"] for document in documents) == 1
        assert len(client.search_model_versions(f"name = '{name}'")) == 1
