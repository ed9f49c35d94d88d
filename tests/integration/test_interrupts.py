"""What is left when work is cut short: Ctrl+C, a full disk, a lost tracking server."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from newsbert.bundle import Bundle
from tests.conftest import Cli

MB = 1024 * 1024


def _arguments(tiny_encoder: Path, labelled_file: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "newsbert", "train", "--data", str(labelled_file), "--base-model", str(tiny_encoder),
        "--max-length", "48", "--batch-size", "8", *more,
    ]  # fmt: skip


def _start(arguments: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8")


def _wait_for(process: "subprocess.Popen[str]", sign: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if sign in line:
            return
    pytest.fail(f"it ended without saying {sign!r}")


def _left_behind(directory: Path) -> list[str]:
    return [path.name for path in directory.glob("bundles/*")] + [path.name for path in directory.glob("bundles/.*")]


def test_ctrl_c_once_keeps_the_best_model_so_far(tiny_encoder: Path, labelled_file: Path, tmp_path: Path) -> None:
    process = _start(_arguments(tiny_encoder, labelled_file, "--epochs", "5000", "--json"))
    _wait_for(process, "step ")
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    document = json.loads(stdout)
    assert document["stopped_early"] is True
    Bundle.read(tmp_path / document["bundle"]).verify()
    assert _left_behind(tmp_path) == [document["run_id"]]


def test_ctrl_c_twice_aborts_and_leaves_nothing(tiny_encoder: Path, labelled_file: Path, tmp_path: Path) -> None:
    import mlflow

    process = _start(_arguments(tiny_encoder, labelled_file, "--epochs", "5000"))
    _wait_for(process, "step ")
    process.send_signal(signal.SIGINT)
    _wait_for(process, "stopping after this step")
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    assert _left_behind(tmp_path) == []
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert run.info.status == "KILLED"


def test_what_a_killed_training_leaves_is_removed_by_the_next_and_a_living_one_is_let_alone(
    tiny_encoder: Path, labelled_file: Path, tmp_path: Path
) -> None:
    import mlflow

    killed, living = (_start(_arguments(tiny_encoder, labelled_file, "--epochs", "5000", "--json")) for _ in range(2))
    for process in (killed, living):
        _wait_for(process, "step ")
    killed.kill()
    killed.communicate(timeout=30)
    assert len(set(_left_behind(tmp_path))) == 2
    third = subprocess.run(
        _arguments(tiny_encoder, labelled_file, "--epochs", "1", "--json"),
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert third.returncode == 0, third.stderr
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    status = {run.info.run_id: run.info.status for run in client.search_runs(experiments)}
    assert sorted(status.values()) == ["FINISHED", "KILLED", "RUNNING"]
    (killed_id,) = (run_id for run_id in status if status[run_id] == "KILLED")
    assert killed_id in third.stderr
    living.send_signal(signal.SIGINT)
    stdout, stderr = living.communicate(timeout=120)
    assert living.returncode == 0, stderr
    assert set(_left_behind(tmp_path)) == {json.loads(each)["run_id"] for each in (stdout, third.stdout)}


def test_artifacts_that_cannot_be_written_are_told_before_any_training(
    tiny_encoder: Path, labelled_file: Path, tmp_path: Path
) -> None:
    import mlflow

    (tmp_path / "mlruns").write_text("no directory")
    run = subprocess.run(
        _arguments(tiny_encoder, labelled_file), capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 1
    assert "artifacts cannot be written" in run.stderr
    assert str(tmp_path / "mlruns") in run.stderr
    assert "Traceback" not in run.stderr
    assert "tokenizing" not in run.stderr
    assert _left_behind(tmp_path) == []
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (logged,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert logged.info.status == "FAILED"


def test_a_disk_that_is_full_is_an_error_and_leaves_nothing(
    tiny_encoder: Path, labelled_file: Path, tmp_path: Path
) -> None:
    def small_files_only() -> None:
        # Any file that grows beyond this fails with EFBIG: what a full disk does, for whoever is not root.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MB, 2 * MB))

    # The database, whose migrations need the room, is made before.
    import mlflow

    mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").search_experiments()
    big = tmp_path / "big.csv"
    rows = labelled_file.read_text(encoding="utf-8").splitlines()
    assert len("\n".join(rows)) < MB
    big.write_text("\n".join(rows), encoding="utf-8")
    run = subprocess.run(
        _arguments(_widened(tiny_encoder, tmp_path), big, "--epochs", "1"),
        preexec_fn=small_files_only,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 1, run.stderr
    assert "cannot hold it" in run.stderr
    assert "Traceback" not in run.stderr
    assert _left_behind(tmp_path) == []


def _widened(encoder: Path, directory: Path) -> Path:
    """An encoder whose weights are more than 2 MB."""
    import shutil

    from transformers import BertConfig, BertModel

    wide = directory / "wide-bert"
    shutil.copytree(encoder, wide)
    config = BertConfig.from_pretrained(encoder)
    config.update({"intermediate_size": 16_384})
    BertModel(config).save_pretrained(wide)
    return wide


def test_serve_locally_stops_all_of_it_on_ctrl_c(bundle: Bundle) -> None:
    process = _start([sys.executable, "-m", "newsbert", "serve", "locally", str(bundle.path), "--port", "0", "--json"])
    assert process.stdout is not None
    document = ""
    while not document.endswith("}\n"):
        document += process.stdout.readline()
    assert json.loads(document)["model"] == bundle.path.name
    children = _descendants(process.pid)
    assert len(children) >= 2  # the frontend and a worker
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 0
    deadline = time.monotonic() + 5
    while any(map(_alive, children)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(_alive, children))


def test_a_killed_supervisor_takes_its_server_with_it(bundle: Bundle) -> None:
    process = _start([sys.executable, "-m", "newsbert", "serve", "locally", str(bundle.path), "--port", "0", "--json"])
    assert process.stdout is not None
    process.stdout.readline()
    children = _descendants(process.pid)
    process.kill()
    process.communicate(timeout=30)
    deadline = time.monotonic() + 15
    while any(map(_alive, children)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(_alive, children))


def test_two_servers_at_once_do_not_disturb_each_other(bundle: Bundle, cli: Cli) -> None:
    servers = [
        json.loads(cli("serve", "locally", bundle.path, "--detach", "--port", "0", "--json").stdout) for _ in range(2)
    ]
    assert servers[0]["port"] != servers[1]["port"]
    assert cli("serve", "stop", "--port", servers[0]["port"]).returncode == 0
    asked = cli("predict", "--url", servers[1]["url"], "--json", "the team won the cup")
    assert asked.returncode == 0, asked.stderr
    assert len(json.loads(asked.stdout)["predictions"]) == 1
    assert cli("serve", "stop").returncode == 0
    assert cli("predict", "--url", servers[1]["url"], "the team").returncode == 1


def _descendants(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_unreachable_tracking_server_is_told_before_any_training(
    tiny_encoder: Path, labelled_file: Path, tmp_path: Path
) -> None:
    started = time.monotonic()
    run = subprocess.run(
        _arguments(tiny_encoder, labelled_file),
        env={**os.environ, "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 1
    assert "http://127.0.0.1:9 cannot be reached" in run.stderr
    assert time.monotonic() - started < 60
    assert _left_behind(tmp_path) == []
