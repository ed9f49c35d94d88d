"""Commands that are killed at random moments: the next one gives what it gives anyhow, and nothing is left."""

import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest

import newsbert
from tests.support.cli import long

pytestmark = [long, pytest.mark.timeout(1800)]
Trained = tuple[newsbert.TrainResult, str]


class Desk:
    """A directory, and commands in it.

    Args:
        directory: All that they write is below it.
        tracking_uri: The tracking server.
        rows: Labelled rows.
        base_model: An encoder.
        own_server: Whether the tracking server is a file of the directory's own instead.
    """

    def __init__(
        self, directory: Path, tracking_uri: str, rows: Path, base_model: Path, *, own_server: bool = False
    ) -> None:
        self.directory, self.rows = directory, rows
        self.training = (
            "--data", rows, "--base-model", base_model, "--max-length", "48", "--batch-size", "8", "--max-steps", "20",
        )  # fmt: skip
        self.project = directory / "project"
        self.project.mkdir(parents=True)
        self.temporary = Path(tempfile.mkdtemp())  # a short path, as for any server's directory
        self.environment = {
            **os.environ,
            "TMPDIR": str(self.temporary),
            "NEWSBERT_CACHE_DIR": str(directory / "cache"),
            "NEWSBERT_STATE_DIR": str(directory / "state"),
            "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db" if own_server else tracking_uri,
            "OMP_NUM_THREADS": "1",  # else sums are added in another order where there are other cores
        }

    def start(self, *arguments: object) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "newsbert", *map(str, arguments)],
            cwd=self.project, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *arguments: object) -> Any:
        """Run a command to its end and return its document."""
        with self.start(*arguments, "--json") as process:
            stdout, stderr = process.communicate(timeout=900)
        assert process.returncode == 0, stderr
        return json.loads(stdout)

    def kill(self, after_s: float, *arguments: object) -> None:
        """Kill a command, and see all end that it has started."""
        with self.start(*arguments) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=after_s)
            started = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            process.kill()
        _, alive = psutil.wait_procs(started, timeout=60)
        assert not alive

    def files(self) -> set[str]:
        """The files that are there, but for names that hold a run's id, logs, and locks, which stay."""
        return {
            str(path.relative_to(self.directory))
            for path in self.directory.rglob("*")
            if path.is_file()
            and not {"mlruns", "bundles"} & set(path.parts)
            and ".log" not in path.name
            and path.suffix != ".lock"
        }


Finish = Callable[[Desk, Trained], Any]
"""The next command, and others that show what is there: what it returns is compared."""


def _archive(desk: Desk, trained: Trained) -> Any:
    return desk.run("export", "archive", trained[0].bundle, "--output-dir", "store")["sha256"]


def _predict_file(desk: Desk, trained: Trained) -> Any:
    desk.run("predict", "--model", trained[0].bundle, "--file", desk.rows, "--output", "out.csv")
    return (desk.project / "out.csv").read_bytes()


def _fetch(desk: Desk, _: Trained) -> Any:
    return desk.run("predict", "--model", "TinyModel/1", "goal team")["predictions"]


def _register(desk: Desk, trained: Trained) -> Any:
    name = f"Killed-{desk.directory.name}"
    registered = desk.run("register", trained[0].run_id, "--model-name", name)
    client = mlflow.MlflowClient(trained[1])
    running = client.search_runs(
        [client.get_run(trained[0].run_id).info.experiment_id], "attributes.status = 'RUNNING'", max_results=1
    )
    return (
        registered["model"].removeprefix(name), len(client.search_model_versions(f"name = '{name}'")), list(running)
    )  # fmt: skip


def _train(desk: Desk, _: Trained) -> Any:
    """Go on with the run that was killed, if it was begun and is not finished; else begin another."""
    (run,) = desk.run("runs")["runs"] or [None] if (desk.project / "mlflow.db").exists() else [None]
    bundles = desk.project / "bundles"
    if run is not None and run["status"] == "finished":
        (bundle,) = bundles.iterdir()
        return newsbert.load(bundle).predict(["goal team"])
    if run is not None and (bundles / run["run_id"]).exists():
        desk.run("register", bundles / run["run_id"], "--model-name", "Late")
    elif run is not None and list(bundles.glob(".*")):
        desk.run("train", "--resume", run["run_id"])
    else:
        desk.run("train", *desk.training)
    statuses = sorted(run["status"] for run in desk.run("runs")["runs"])
    assert statuses in (["finished"], ["finished", "killed"]), statuses
    (bundle,) = bundles.iterdir()
    return newsbert.load(bundle).predict(["goal team"])


def _serve(desk: Desk, trained: Trained) -> Any:
    served = desk.run("serve", "locally", trained[0].bundle, "--port", "0", "--detach")
    try:
        return desk.run("predict", "--url", served["url"], "goal team")["predictions"]
    finally:
        desk.run("serve", "stop", "--port", served["port"])


def _tracking(desk: Desk, _: Trained) -> Any:
    server = desk.run("tracking", "up", "--port", "0", "--detach")
    try:
        client = mlflow.MlflowClient(server["url"])
        client.create_experiment("afterwards")
        return desk.run("tracking", "status")["mlflow"]
    finally:
        desk.run("tracking", "down")


COMMANDS: dict[str, tuple[Callable[[Desk, Trained], tuple[object, ...]], Finish, int]] = {
    "archive": (lambda _, trained: ("export", "archive", trained[0].bundle, "--output-dir", "store"), _archive, 7),
    "predict a file": (
        lambda desk, trained: ("predict", "--model", trained[0].bundle, "--file", desk.rows, "--output", "out.csv"),
        _predict_file,
        8,
    ),
    "fetch": (lambda _, __: ("predict", "--model", "TinyModel/1", "goal team"), _fetch, 7),
    "register": (
        lambda desk, trained: ("register", trained[0].run_id, "--model-name", f"Killed-{desk.directory.name}"),
        _register,
        8,
    ),
    "train": (lambda desk, _: ("train", *desk.training), _train, 8),
    "serve": (lambda _, trained: ("serve", "locally", trained[0].bundle, "--port", "0"), _serve, 6),
    "tracking": (lambda _, __: ("tracking", "up", "--port", "0"), _tracking, 6),
}
"""By what is killed: its arguments, what comes next, and how many times it is killed: 50 in all."""


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_killed_at_a_random_moment_gives_the_same_afterwards(
    name: str, trained: Trained, tiny_encoder: Path, labelled_file: Path, tmp_path: Path
) -> None:
    arguments, finish, num_kills = COMMANDS[name]

    def make(number: int) -> Desk:
        return Desk(tmp_path / f"{number}", trained[1], labelled_file, tiny_encoder, own_server=name == "train")

    unbroken = make(0)
    began = time.monotonic()
    expected = finish(unbroken, trained)
    duration_s = time.monotonic() - began
    draw = random.Random(name)
    for number in range(1, num_kills + 1):
        desk = make(number)
        after_s = draw.uniform(0, duration_s)
        desk.kill(after_s, *arguments(desk, trained))
        assert finish(desk, trained) == expected, after_s
        desk.temporary.rmdir()  # which is empty
        assert desk.files() == unbroken.files(), after_s
