"""Team tracking servers, `newsbert tracking up`, and what tests log to them."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.calls import free_port
from tests.support.cli import Cli
from tests.support.postgres import Postgres

Up = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    cluster = Postgres()
    yield cluster
    cluster.stop()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket, and what MLflow has to know of it."""
    moto = pytest.importorskip("moto.server", reason="needs moto")
    import boto3

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAPLANTED")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-bucket-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="models")
    yield "s3://models/mlflow"
    server.stop()


@pytest.fixture
def gs(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of Google's, and what MLflow has to know of it."""
    pytest.importorskip("gcp_storage_emulator", reason="needs gcp-storage-emulator")
    port = free_port()
    command = f"from gcp_storage_emulator.__main__ import main; main(['start', '--host=127.0.0.1', '--port={port}', "
    command += "'--in-memory', '--default-bucket=models'])"
    process = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: _listens(port))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    yield "gs://models/mlflow"
    process.kill()
    process.wait()


@pytest.fixture
def up(cli: Cli) -> Iterator[Up]:
    """Start servers of one worker in the background; all are stopped at the end."""
    directories: list[str] = []

    def start(*arguments: object, directory: str = "tracking", **environment: str) -> dict[str, Any]:
        directories.append(directory)
        place = ("--directory", directory, "--port", 0) if "--port" not in arguments else ("--directory", directory)
        environment = {"NEWSBERT_TRACKING_WORKERS": "1", **environment}  # the import of MLflow is most of a start
        ran = cli("tracking", "up", "--detach", "--json", *place, *arguments, **environment)
        assert ran.returncode == 0, ran.stderr
        document: dict[str, Any] = json.loads(ran.stdout)
        return document

    yield start
    for directory in directories:
        cli("tracking", "down", "--directory", directory)


def log_run(url: str) -> tuple[str, str]:
    """Log a run with an artifact; return its id, and the experiment's."""
    import mlflow

    client = mlflow.MlflowClient(url)
    known = client.get_experiment_by_name("some")
    experiment = known.experiment_id if known else client.create_experiment("some")
    run = client.create_run(experiment)
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    client.log_metric(run.info.run_id, "accuracy", 0.75)
    client.log_text(run.info.run_id, "what was logged", "notes/some.txt")
    return run.info.run_id, experiment


def assert_logged(url: str, run: tuple[str, str]) -> None:
    import mlflow

    client = mlflow.MlflowClient(url)
    assert client.get_run(run[0]).data.metrics == {"accuracy": 0.75}
    path = mlflow.artifacts.download_artifacts(run_id=run[0], artifact_path="notes/some.txt", tracking_uri=url)
    assert Path(path).read_text() == "what was logged"


def files_with(text: str, place: Path) -> list[Path]:
    files = [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]
    return [file for file in files if text.encode() in file.read_bytes()]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)
