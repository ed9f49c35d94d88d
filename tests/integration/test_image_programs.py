"""Images at work: the trainer's, for `newsbert train` and `mlflow run`, and the tracking server's."""

import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

import newsbert
from newsbert.bundle.bundle import Bundle
from newsbert.core.settings import ImageSettings
from newsbert.tracking import locate, run_list
from tests.support.cli import Cli, long
from tests.support.images import Images, image_toml, remove_image

Trained = tuple[newsbert.TrainResult, str]


@pytest.mark.engine
def test_training_in_the_container_is_training_here(
    images: Images, image_settings: ImageSettings, tiny_encoder: Path, labelled_file: Path, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "newsbert.toml").write_text(image_toml(image_settings), encoding="utf-8")
    # A link to what lies elsewhere: the container sees the file under another path.
    linked = tmp_path / "linked.csv"
    linked.symlink_to(labelled_file)
    arguments = ["--data", linked, "--base-model", tiny_encoder, "--max-length", 48, "--epochs", 2,
                 "--model-name", "Boxed", "--json"]  # fmt: skip
    done = cli("train", "--in-container", *arguments)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    bundle = Bundle.read(tmp_path / document["bundle"])
    bundle.verify()
    assert {(path.stat().st_uid, path.stat().st_gid) for path in tmp_path.rglob("*")} == {
        (tmp_path.stat().st_uid, tmp_path.stat().st_gid)
    }
    assert newsbert.load("Boxed/1").bundle.digest == bundle.digest
    for output in ("/proc/nowhere/x", labelled_file / "x"):
        impossible = cli("train", "--in-container", "--output-dir", output)
        assert impossible.returncode == 2
        assert "Traceback" not in impossible.stderr
    refused = cli("train", "--in-container", "--data", "nowhere.csv", "--json")
    assert refused.returncode == 2
    assert "nowhere.csv" in json.loads(refused.stdout)["error"]["message"]


@pytest.mark.engine
def test_mlflow_run_trains_in_the_trainer_image(
    images: Images, image_settings: ImageSettings, mlflow_server: str, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "newsbert.toml").write_text(image_toml(image_settings), encoding="utf-8")
    built = cli("build-image", "--trainer", "--project", "project")
    assert built.returncode == 0, built.stderr
    assert images.trainer.tag in (tmp_path / "project" / "MLproject").read_text(encoding="utf-8")
    (tmp_path / "my news.csv").write_text(
        "headline,label\n" + "".join(f"goal team {n},sport\nstocks market {n},money\n" for n in range(40)),
        encoding="utf-8",
    )

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "mlflow", "run", "project", "-A", "network=host", "-P", "max_epochs=0.2", *words],
            env={**os.environ, "MLFLOW_TRACKING_URI": mlflow_server},
            capture_output=True, text=True, check=False, timeout=400,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    printed = run("-P", "num_samples=64", "-P", "model_name=FromProject")
    assert "FromProject/1" in printed
    assert "in the experiment 'Default', and newsbert's is 'newsbert'" in printed
    assert newsbert.load("FromProject/1", tracking_uri=mlflow_server).name == "FromProject/1"
    # The files of this machine, options of two words, and no model that nobody named.
    tmp_path.chmod(0o755)
    volume = ("-A", f"volume={tmp_path}:{tmp_path}:ro", "-A", f"workdir={tmp_path}", "-A", "user=4321:4321")
    options = ("-P", "data=my news.csv", "-P", "text_column=headline", "-P", "learning_rate=2e-5")
    printed = run("--experiment-name", "newsbert", *volume, *options)
    (listed,) = (
        run
        for run in run_list.training_runs(locate.connect(mlflow_server), 20)
        if shlex.split(run.params["data"]) == ["my news.csv"]  # MLflow logs it as it quotes it for the shell
    )
    assert (listed.params["learning_rate"], listed.versions) == ("2e-5", {})
    assert f"newsbert register {listed.run_id}" in printed


@long
@pytest.mark.engine
def test_the_tracking_image_is_a_teams_server(
    images: Images, image_settings: ImageSettings, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import docker
    import mlflow

    (tmp_path / "newsbert.toml").write_text(image_toml(image_settings), encoding="utf-8")
    built = cli("build-image", "--tracking", "--json", timeout_s=600)
    assert built.returncode == 0, built.stderr
    image = json.loads(built.stdout)["images"][-1]["tag"]
    with contextlib.closing(docker.from_env()) as client:
        container = client.containers.run(
            image, detach=True, read_only=True, tmpfs={"/tmp": ""}, cap_drop=["ALL"], ports={"5000": ("127.0.0.1", 0)},
            security_opt=["no-new-privileges"],
            environment={"NEWSBERT_TRACKING_ALLOWED_HOSTS": "127.0.0.1"},
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 90
            while b"is ready on" not in container.logs():
                assert time.monotonic() < deadline, container.logs().decode()
                time.sleep(0.5)
            made = container.exec_run(["newsbert", "tracking", "user", "admin", "--json"], stderr=False)
            assert made.exit_code == 0, made.output
            container.reload()
            port = container.attrs["NetworkSettings"]["Ports"]["5000/tcp"][0]["HostPort"]
            url = f"http://127.0.0.1:{port}"
            refused = cli("runs", MLFLOW_TRACKING_URI=url)
            assert "does not take requests without a name and a password" in refused.stderr
            monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", json.loads(made.output)["password"])
            tracked = mlflow.MlflowClient(url)
            run = tracked.create_run(tracked.create_experiment("some")).info
            tracked.log_text(run.run_id, "what was logged", "some.txt")
            path = mlflow.artifacts.download_artifacts(run.artifact_uri + "/some.txt", tracking_uri=url)
            assert Path(path).read_text() == "what was logged"
            # Logs stay: the password that was made at the start is in none.
            printed = container.logs().decode()
            assert "newsbert tracking user admin  gives the administrator a password" in printed
            assert "shown this once" not in printed
            assert container.exec_run(["newsbert", "tracking", "status"]).exit_code == 0
        finally:
            container.remove(force=True, v=True)
            remove_image(image)
