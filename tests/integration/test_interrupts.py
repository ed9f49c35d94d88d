"""What is left when work is cut short: Ctrl+C, a full disk, a lost tracking server."""

import contextlib
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from newsbert.bundle.bundle import Bundle
from tests.support.calls import free_port
from tests.support.cli import Cli, long, wait_for_checkpoint
from tests.support.servers import tracking_server

MB = 1024 * 1024


def _arguments(tiny_encoder: Path, labelled_file: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "newsbert", "train", "--data", str(labelled_file), "--base-model", str(tiny_encoder),
        "--max-length", "48", "--batch-size", "8", *more,
    ]  # fmt: skip


def _resume(reference: str) -> list[str]:
    return [sys.executable, "-m", "newsbert", "train", "--json", "--resume", reference]


Start = Callable[[list[str]], "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process; what is left of it is killed after the test."""
    with contextlib.ExitStack() as stack:

        def begin(arguments: list[str]) -> "subprocess.Popen[str]":
            process = stack.enter_context(
                subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8")
            )
            stack.callback(process.kill)
            return process

        yield begin


def _wait_for(process: "subprocess.Popen[str]", *signs: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if any(sign in line for sign in signs):
            return
    pytest.fail(f"it ended without saying any of {signs}")


def _left_behind(directory: Path) -> list[str]:
    return [path.name for path in directory.glob("bundles/*")] + [path.name for path in directory.glob("bundles/.*")]


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=long)])
def test_ctrl_c_once_finishes_what_is_kept(
    start: Start, tiny_encoder: Path, labelled_file: Path, tmp_path: Path, number: signal.Signals
) -> None:
    process = start(_arguments(tiny_encoder, labelled_file, "--epochs", "5000", "--json"))
    _wait_for(process, "step ")
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    document = json.loads(stdout)
    assert document["stopped_early"] is True
    Bundle.read(tmp_path / document["bundle"]).verify()
    assert _left_behind(tmp_path) == [document["run_id"]]


def test_ctrl_c_twice_aborts_and_leaves_nothing(
    start: Start, tiny_encoder: Path, labelled_file: Path, tmp_path: Path
) -> None:
    import mlflow

    arguments = _arguments(tiny_encoder, labelled_file, "--epochs", "5000", "--output-dir", "bundles/news")
    process = start(arguments)
    _wait_for(process, "step ")
    other = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
    assert other.returncode == 2, other.stderr
    assert "--output-dir bundles/news is what another training under way is to become" in other.stderr
    process.send_signal(signal.SIGINT)
    _wait_for(process, "stopping after this step")
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    assert _left_behind(tmp_path) == []
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert run.info.status == "KILLED"


def test_a_killed_training_goes_on_and_a_living_one_is_let_alone(
    start: Start, tiny_encoder: Path, labelled_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # several trainings at once would wait for one another's threads
    import mlflow

    # A checkpoint at every evaluation: on a fast machine the whole training takes less than the pause between two.
    program = (
        "import sys; from newsbert.training.trainer import Trainer; from newsbert.cli import app; "
        "Trainer.min_checkpoint_interval_s = 0.0; sys.exit(app.main())"
    )
    arguments = _arguments(tiny_encoder, labelled_file, "--json", "--epochs")
    living = start([sys.executable, "-c", program, *arguments[3:], "10000"])
    try:
        wait_for_checkpoint(tmp_path, living, 1)
        killed = start([sys.executable, "-c", program, *arguments[3:], "40"])
        wait_for_checkpoint(tmp_path, killed, 2)
        killed.kill()
        killed.communicate(timeout=30)
        assert len(set(_left_behind(tmp_path))) == 2
        third = subprocess.run([*arguments, "40"], capture_output=True, text=True, check=False, timeout=600)
        assert third.returncode == 0, third.stderr
        whole = json.loads(third.stdout)
        client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        status = {run.info.run_id: run.info.status for run in client.search_runs(experiments)}
        assert sorted(status.values()) == ["FINISHED", "KILLED", "RUNNING"]
        killed_id, living_id = (
            next(run_id for run_id in status if status[run_id] == wanted) for wanted in ("KILLED", "RUNNING")
        )
        assert killed_id in third.stderr
        assert "newsbert train --resume" in third.stderr
        resume = [sys.executable, "-m", "newsbert", "train", "--json", "--resume"]
        busy = subprocess.run([*resume, living_id], capture_output=True, text=True, check=False, timeout=600)
        assert busy.returncode == 2
        assert "another process" in json.loads(busy.stdout)["error"]["message"]
    finally:
        living.send_signal(signal.SIGINT)
        stdout, stderr = living.communicate(timeout=600)
    assert living.returncode == 0, stderr
    # As if the last metrics had still been on their way when it was killed.
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        for table in ("metrics", "latest_metrics"):
            database.execute(f"DELETE FROM {table} WHERE run_uuid = ? AND key = 'train_loss'", (killed_id,))
    resumed = subprocess.run([*resume, killed_id[:8]], capture_output=True, text=True, check=False, timeout=600)
    assert resumed.returncode == 0, resumed.stderr
    # The same seed: what was killed ends as what never was.
    gone_on = json.loads(resumed.stdout)
    assert gone_on["run_id"] == killed_id
    assert gone_on["metrics"] == whole["metrics"]
    assert set(_left_behind(tmp_path)) == {each["run_id"] for each in (whole, gone_on, json.loads(stdout))}
    assert client.get_run(killed_id).info.status == "FINISHED"
    histories = [client.get_metric_history(run_id, "train_loss") for run_id in (killed_id, whole["run_id"])]
    assert [(each.step, each.value) for each in histories[0]] == [(each.step, each.value) for each in histories[1]]
    assert len(histories[0]) == 100


@long
def test_a_training_that_is_killed_before_any_checkpoint_begins_again_in_its_run(
    start: Start, tiny_encoder: Path, labelled_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # two trainings one after the other do the same in as many threads
    import mlflow

    killed = start(_arguments(tiny_encoder, labelled_file, "--epochs", "50"))
    _wait_for(killed, "training ")  # after its first step: there is no checkpoint
    killed.kill()
    killed.communicate(timeout=30)
    (left,) = set(_left_behind(tmp_path))
    assert not list(tmp_path.glob("bundles/.*/checkpoints/checkpoint-*"))
    other = subprocess.run(
        _arguments(tiny_encoder, labelled_file, "--epochs", "50", "--json"),
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert other.returncode == 0, other.stderr
    assert f"newsbert train --resume bundles/{left} goes on with it; or remove that directory" in other.stderr
    # As if it had been killed before its parameters were logged.
    (run_id,) = (tmp_path / "bundles" / left / "lock").read_text(encoding="utf-8").split()
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute("DELETE FROM params WHERE run_uuid = ?", (run_id,))
    elsewhere = subprocess.run(
        [*_resume(run_id[:8]), "--tracking-uri", f"sqlite:///{tmp_path / 'other.db'}"],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert elsewhere.returncode == 1, elsewhere.stderr
    assert left in _left_behind(tmp_path)  # it has no such run, and nothing is lost
    resumed = subprocess.run(
        _resume(run_id[:8]),
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert resumed.returncode == 0, resumed.stderr
    found, whole = json.loads(resumed.stdout), json.loads(other.stdout)
    assert (found["run_id"], found["metrics"]) == (run_id, whole["metrics"])
    runs = [client.get_run(each["run_id"]) for each in (found, whole)]
    assert runs[0].info.status == "FINISHED"
    assert runs[0].data.params == runs[1].data.params
    assert [len(run.inputs.dataset_inputs) for run in runs if run.inputs] == [3, 3]
    histories = [client.get_metric_history(run.info.run_id, "train_loss") for run in runs]
    assert [(each.step, each.value) for each in histories[0]] == [(each.step, each.value) for each in histories[1]]
    assert set(_left_behind(tmp_path)) == {found["run_id"], whole["run_id"]}


@long
def test_a_disk_that_fills_up_at_a_later_checkpoint_leaves_the_one_before_to_go_on_from(
    start: Start, tiny_encoder: Path, labelled_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # two trainings one after the other do the same in as many threads
    program = (
        "import sys; from newsbert.training.trainer import Trainer; from newsbert.cli import app; "
        "Trainer.min_checkpoint_interval_s = 0.0; sys.exit(app.main())"
    )
    arguments = [*_arguments(tiny_encoder, labelled_file, "--json", "--epochs", "60")[3:]]
    full = start([sys.executable, "-c", program, *arguments])
    wait_for_checkpoint(tmp_path, full)
    resource.prlimit(full.pid, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    stdout, stderr = full.communicate(timeout=300)
    assert full.returncode == 1, stderr
    error = json.loads(stdout)["error"]
    assert "cannot hold it" in error["message"]
    (left,) = set(_left_behind(tmp_path))
    assert error["hint"] == f"make room, then go on: newsbert train --resume bundles/{left}"
    assert "Traceback" not in stderr
    assert len(list(tmp_path.glob("bundles/.*/checkpoints/checkpoint-*"))) == 1
    resumed, whole = (
        subprocess.run(
            [sys.executable, "-m", "newsbert", *more], capture_output=True, text=True, check=False, timeout=300
        )
        for more in (["train", "--json", "--resume", f"bundles/{left}"], arguments)
    )
    assert resumed.returncode == whole.returncode == 0, resumed.stderr + whole.stderr
    assert json.loads(resumed.stdout)["metrics"] == json.loads(whole.stdout)["metrics"]


def test_artifacts_that_cannot_be_written_are_told_before_any_training(
    tiny_encoder: Path, labelled_file: Path, tmp_path: Path
) -> None:
    import mlflow

    (tmp_path / "mlruns").write_text("no directory")
    run = subprocess.run(
        _arguments(tiny_encoder, labelled_file), capture_output=True, text=True, check=False, timeout=300
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
        timeout=300,
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


def test_serve_locally_stops_all_of_it_on_ctrl_c(start: Start, bundle: Bundle) -> None:
    process = start([sys.executable, "-m", "newsbert", "serve", "locally", str(bundle.path), "--port", "0", "--json"])
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


def test_a_killed_supervisor_takes_its_server_with_it(start: Start, bundle: Bundle) -> None:
    process = start([sys.executable, "-m", "newsbert", "serve", "locally", str(bundle.path), "--port", "0", "--json"])
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
        timeout=300,
    )
    assert run.returncode == 1
    assert "http://127.0.0.1:9 cannot be reached" in run.stderr
    assert time.monotonic() - started < 60
    assert _left_behind(tmp_path) == []


def test_a_tracking_server_that_goes_away_and_comes_back_gets_all_metrics_and_the_model(
    start: Start, tiny_encoder: Path, labelled_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # several trainings at once would wait for one another's threads
    import mlflow

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # MLflow pauses for 14 s over three
    port = free_port()
    with tracking_server(tmp_path, port, signal.SIGKILL) as url:
        process = start([*_arguments(tiny_encoder, labelled_file, "--epochs", "400"), "--tracking-uri", url])
        _wait_for(process, "(epoch 3.")
    _wait_for(process, "does not answer", "trying again")
    with tracking_server(tmp_path, port, signal.SIGKILL) as url:
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
        client = mlflow.MlflowClient(url)
        (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
        assert run.info.status == "FINISHED"
        steps = [each.step for each in client.get_metric_history(run.info.run_id, "train_loss")]
        assert steps == sorted(set(steps))
        assert len(steps) == 100
        assert run.data.metrics["test_accuracy"] > 0
        assert client.search_logged_models([run.info.experiment_id])


def test_a_model_that_could_not_be_logged_is_when_it_is_registered(
    start: Start, tiny_encoder: Path, labelled_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # MLflow pauses for 14 s over three
    port = free_port()
    program = (
        "import sys; from newsbert.tracking import upload; from newsbert.cli import app; "
        "upload._PAUSES_S, upload._METRICS_S = (1,), 1.0; sys.exit(app.main())"
    )
    arguments = _arguments(tiny_encoder, labelled_file, "--epochs", "100", "--json", "--output-dir", "bundle")
    with tracking_server(tmp_path, port, signal.SIGKILL) as url:
        process = start([sys.executable, "-c", program, *arguments[3:], "--tracking-uri", url])
        _wait_for(process, "(epoch 3.")
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 1, stderr
    error = json.loads(stdout)["error"]
    assert "the model is finished and in" in error["message"]
    assert "newsbert register" in error["hint"]
    bundle = Bundle.read(tmp_path / "bundle")
    bundle.verify()
    with tracking_server(tmp_path, port, signal.SIGKILL) as url:
        register = [sys.executable, "-m", "newsbert", "register", "bundle", "--model-name", "Late", "--json"]
        for created in (True, False):
            done = subprocess.run(
                [*register, "--tracking-uri", url], capture_output=True, text=True, check=False, timeout=300
            )
            assert done.returncode == 0, done.stderr
            document = json.loads(done.stdout)
            assert (document["model"], document["created"]) == ("Late/1", created)
        client = mlflow.MlflowClient(url)
        run = client.get_run(document["run_id"])
        assert run.info.status == "FINISHED"
        assert run.data.metrics["test_accuracy"] == bundle.contract.metrics["accuracy"]
        steps = [each.step for each in client.get_metric_history(run.info.run_id, "train_loss")]
        assert len(steps) == len(set(steps)) == 100
        names = {each.path for each in client.list_artifacts(run.info.run_id)}
        assert {"classification_report.json", "model_summary.txt", "learning_curves.png"} <= names
    assert [path.name for path in tmp_path.glob(".bundle*")] == []
