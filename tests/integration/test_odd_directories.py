"""Archives and directories with odd names, and an archive that is swapped after it was checked."""

import json
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

import newsbert
from newsbert.bundle.bundle import Bundle
from newsbert.core.settings import ServeSettings
from newsbert.serving import archive
from newsbert.serving.torchserve import supervisor
from tests.support.cli import Cli, long


def test_attack_another_archive_is_served_or_a_port_opened(
    trained: tuple[newsbert.TrainResult, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Xbogus")
    settings = ServeSettings(port=0)
    store = tmp_path / "jürgen\nload_models=x"
    made = archive.write(Bundle.read(trained[0].bundle), store, "TinyModel/1", settings).rename(
        store / "a,b=evil.mar.mar"
    )
    base = Path(tempfile.mkdtemp())
    work = base / "jü $x %d'\nadded=1"  # short: a socket's path is limited
    work.mkdir(mode=0o700)
    try:
        with supervisor.serving(made, settings, work, print) as server:
            made.write_bytes(b"swapped")
            assert server.wait_ready(60, threading.Event())
    finally:
        shutil.rmtree(base)


@pytest.mark.parametrize(
    "name",
    [
        "ü a%20b#c?d=e&f;g",
        *(pytest.param(name, marks=long) for name in ("a%20b", "a#b", "a?b", "ü", "%2e%2e", "a:b@c")),
    ],
)
def test_all_works_in_a_project_directory_whose_name_is_odd_in_a_url(
    name: str, cli: Cli, tiny_encoder: Path, labelled_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "projects" / name
    project.mkdir(parents=True)
    monkeypatch.chdir(project)

    def run(*arguments: object) -> Any:
        done = cli(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    trained = run("train", "--data", labelled_file, "--base-model", tiny_encoder, "--max-length", 48, "--max-steps", 4)
    assert run("register", "--model-name", "TinyModel")["model"] == "TinyModel/1"
    assert [training["run_id"] for training in run("runs")["runs"]] == [trained["run_id"]]
    shutil.rmtree(project / "bundles")  # so that the model comes from the registry
    answers = run("predict", "--model", "TinyModel/1", "goal team")["predictions"]
    assert Path(run("export", "archive", "TinyModel/1", "--output-dir", "store")["archive"]).is_file()
    served = run("serve", "locally", "TinyModel/1", "--detach", "--port", 0)
    try:
        (answer,) = run("predict", "--url", served["url"], "goal team")["predictions"]
    finally:
        run("serve", "stop", "--port", served["port"])
    assert answer["score"] == pytest.approx(answers[0]["score"], abs=1e-3)
    # Nothing is beside it, by another reading of its name.
    assert [path.name for path in project.parent.iterdir()] == [name]
    assert {path.name for path in project.iterdir()} == {"mlflow.db", "mlruns", "store"}
