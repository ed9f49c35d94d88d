"""A team's tracking server: closed by default, nothing lost, backed up and restored."""

import concurrent.futures
import contextlib
import importlib.util
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import newsbert
from newsbert.core import bounded_log
from newsbert.core import processes as background
from newsbert.core.settings import TrackingServerSettings
from newsbert.tracking.server import database
from newsbert.tracking.server import process as server
from tests.support import processes
from tests.support.calls import free_port
from tests.support.cli import Cli, long
from tests.support.postgres import PASSWORD, QUOTED, Postgres

pytestmark = [
    pytest.mark.xdist_group("tracking_server"),
    pytest.mark.skipif(importlib.util.find_spec("flask_wtf") is None, reason="needs newsbert[tracking]"),
]
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
    _wait_until(lambda: _listens(port))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    yield "gs://models/mlflow"
    process.kill()
    process.wait()


@pytest.fixture
def up(cli: Cli) -> Iterator[Up]:
    """Start servers in the background; all are stopped at the end."""
    directories: list[str] = []

    def start(*arguments: object, directory: str = "tracking", **environment: str) -> dict[str, Any]:
        directories.append(directory)
        given = ("--directory", directory, "--port", 0) if "--port" not in arguments else ("--directory", directory)
        ran = cli("tracking", "up", "--detach", "--json", *given, *arguments, **environment)
        assert ran.returncode == 0, ran.stderr
        document: dict[str, Any] = json.loads(ran.stdout)
        return document

    yield start
    for directory in directories:
        cli("tracking", "down", "--directory", directory)


def test_it_is_up_seen_and_down_and_keeps_what_was_logged(up: Up, cli: Cli, tmp_path: Path) -> None:
    started = up()
    assert started["url"].startswith("http://127.0.0.1:")
    assert (started["auth"], started["database"]) == (False, f"sqlite:///{tmp_path / 'tracking' / 'mlflow.db'}")
    run = _log(started["url"])
    log = tmp_path / "tracking" / "server.log"
    with log.open("ab") as stream:
        stream.write(b"x" * (bounded_log.MAX_BYTES + 1))
    _wait_until(lambda: log.stat().st_size < 2**20)
    status = cli("tracking", "status", "--json")
    assert status.returncode == 0, status.stderr
    assert log.stat().st_size < 2**20  # what it logs on is appended
    assert log.with_name("server.log.1").stat().st_size == bounded_log.MAX_BYTES
    assert json.loads(status.stdout)["pid"] == started["pid"]
    assert _listening(started["pid"]) == {("127.0.0.1", int(started["url"].rpartition(":")[2]))}
    # Its files are nobody else's.
    assert (tmp_path / "tracking").stat().st_mode & 0o077 == 0
    again = cli("tracking", "up", "--port", 0)
    assert again.returncode == 1
    assert "a tracking server runs in" in again.stderr and "newsbert tracking down" in again.stderr
    down = cli("tracking", "down")
    assert (down.returncode, down.stdout) == (0, f"stopped {started['url']}\n")
    for command in ("status", "down"):
        gone = cli("tracking", command)
        assert gone.returncode == 1
        assert "no tracking server runs in" in gone.stderr
    _assert_logged(up()["url"], run)


def test_in_the_foreground_it_says_where_it_is_and_ends_at_ctrl_c(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "newsbert", "tracking", "up", "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    assert "is ready on http://127.0.0.1:" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=40)
    assert process.returncode == 0, stderr
    assert stderr.splitlines()[:2] == ["preparing database and artifacts …", "starting …"]
    assert stderr.splitlines()[-2:] == ["Ctrl+C stops it", "stopped"]


def test_nobody_else_gets_the_port_before_the_server_has_it(tmp_path: Path) -> None:
    with (
        server.planned(TrackingServerSettings(directory=str(tmp_path), port=0)) as plan,
        socket.socket() as other,
        pytest.raises(OSError, match="Address already in use"),
    ):
        other.bind((plan.host, plan.port))


@long
def test_a_server_whose_keeper_is_killed_ends_too(up: Up) -> None:
    started = up()
    keeper = psutil.Process(started["pid"])
    family = keeper.children(recursive=True)
    assert family
    keeper.kill()
    _, left = psutil.wait_procs(family, timeout=20)
    assert not left
    up()  # what it left behind does not matter


def test_who_has_no_account_is_told_what_to_do_and_who_has_may_log(
    up: Up, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = up("--auth")
    admin = started["admin_password"]
    assert len(admin) > 20
    monkeypatch.setenv("MLFLOW_TRACKING_URI", started["url"])
    for given, message in (
        ({}, "does not take requests without a name and a password"),
        (
            {"USERNAME": "admin", "PASSWORD": "not-it"},
            "does not take the password in MLFLOW_TRACKING_PASSWORD for admin",
        ),
        ({"USERNAME": "admin", "PASSWORD": "password1234"}, "does not take the password"),  # MLflow's own, once
        ({"TOKEN": "old-token"}, "does not take the token in MLFLOW_TRACKING_TOKEN"),
    ):
        refused = cli("runs", **{f"MLFLOW_TRACKING_{name}": value for name, value in given.items()})
        assert refused.returncode == 1
        assert message in refused.stderr, refused.stderr
        assert not any(value in refused.stderr for name, value in given.items() if name != "USERNAME")
    made = json.loads(cli("tracking", "user", "alice", "--json").stdout)
    assert made["created"]
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "alice")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", made["password"])
    _assert_logged(started["url"], _log(started["url"]))
    renewed = json.loads(cli("tracking", "user", "alice", "--json").stdout)
    assert not renewed["created"]
    assert renewed["password"] != made["password"]
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", renewed["password"])
    assert cli("runs").returncode == 0
    # The passwords are in no file, and no command line shows them.
    for secret in (admin, made["password"], renewed["password"]):
        assert _files_with(secret, tmp_path / "tracking") == []
    assert cli("tracking", "down").returncode == 0
    assert "admin_password" not in up("--auth")
    for name in ("", "a:b", "a\nb", "x" * 300):
        assert cli("tracking", "user", name).returncode == 2


def test_an_exposed_server_asks_for_a_password_and_answers_to_its_names_alone(up: Up, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "tracking").mkdir()
    (tmp_path / "tracking").chmod(0o755)
    started = up("--host", "0.0.0.0", "--allowed-hosts", "mlflow.example.org")
    assert started["auth"]
    assert started["allowed_hosts"] == ["mlflow.example.org", "localhost", "127.0.0.1"]
    port = int(started["url"].rpartition(":")[2])
    assert _listening(started["pid"]) == {("0.0.0.0", port)}
    for host, status in (("mlflow.example.org", 401), (f"127.0.0.1:{port}", 401), ("evil.example", 403)):
        request = urllib.request.Request(
            f"{started['url']}/api/2.0/mlflow/experiments/search?max_results=1", headers={"Host": host}
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        assert refused.value.code == status
        refused.value.close()
    # A browser says where the page is from that posts: the server's own may, others may not.
    for origin, status in (
        ("https://mlflow.example.org", 401),
        (f"http://mlflow.example.org:{port}", 401),
        ("https://evil.example", 403),
        ("https://mlflow.example.org.evil.example", 403),
    ):
        request = urllib.request.Request(
            f"{started['url']}/ajax-api/2.0/mlflow/runs/search", b"{}",
            {"Host": "mlflow.example.org", "Origin": origin, "Content-Type": "application/json"},
        )  # fmt: skip
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        assert (origin, refused.value.code) == (origin, status)
        refused.value.close()
    # Where others may enter the directory, they may not read the database.
    modes = {file.name: file.stat().st_mode & 0o077 for file in (tmp_path / "tracking").glob("*.db*")}
    assert "mlflow.db" in modes and not any(modes.values()), modes
    # The address that a name of this machine has, by which it was not allowed to be called.
    here = cli("runs", MLFLOW_TRACKING_URI=f"http://127.0.0.2:{port}")
    assert here.returncode == 1
    assert "does not answer to the name 127.0.0.2" in here.stderr
    assert "--allowed-hosts 127.0.0.2" in here.stderr


def test_artifacts_go_through_it_to_a_bucket(up: Up, s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started = up("--artifacts", s3)
    for name in ("MLFLOW_S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)  # who logs has none of these
    _assert_logged(started["url"], _log(started["url"]))
    assert _files_with("planted-bucket-secret", tmp_path / "tracking") == []


def test_artifacts_go_through_it_to_googles(up: Up, gs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started = up("--artifacts", gs)
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    _assert_logged(started["url"], _log(started["url"]))


def test_the_doctor_writes_to_the_server_and_the_bucket_and_leaves_nothing(up: Up, s3: str, cli: Cli) -> None:
    import mlflow
    from mlflow.entities import ViewType

    url = up("--artifacts", s3)["url"]
    client = mlflow.MlflowClient(url)

    def looked(artifacts: str, uri: str = url) -> tuple[int, dict[str, Any]]:
        done = cli("doctor", "--json", NEWSBERT_TRACKING_ARTIFACTS=artifacts, MLFLOW_TRACKING_URI=uri)
        assert "planted-bucket-secret" not in done.stdout + done.stderr
        return done.returncode, {each["check"]: each for each in json.loads(done.stdout)["checks"]}

    code, found = looked(s3)
    assert code == 0
    assert found["tracking"]["found"] == (
        f"{url}, MLflow {mlflow.__version__}: a run and a file were written, read and deleted"
    )
    assert found["bucket"] == {
        "check": "bucket",
        "state": "ok",
        "found": f"{s3}: a file was written, read and deleted",
        "fix": None,
    }
    experiment = client.get_experiment_by_name("newsbert")
    assert experiment is not None
    assert client.search_runs([experiment.experiment_id]) == []
    (run,) = client.search_runs([experiment.experiment_id], run_view_type=ViewType.DELETED_ONLY)
    assert client.list_artifacts(run.info.run_id) == []

    code, found = looked("s3://nowhere/x")
    assert (code, found["bucket"]["state"], "NoSuchBucket" in found["bucket"]["found"]) == (0, "note", True)


def test_artifacts_that_cannot_be_written_are_told_before_anything_starts(cli: Cli, s3: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "key.json").write_text("{}")
    google = {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "key.json")}
    for where, environment, code, message, hint in (
        ("s3://nowhere/x", {}, 1, "NoSuchBucket", "aws s3 mb s3://nowhere"),
        (s3, {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, 1, "credentials", "AWS_SECRET_ACCESS_KEY"),
        ("gs://models/x", google, 1, "key.json", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("ftp://models/x", {}, 2, "'ftp://models/x'", "gs://BUCKET"),
        ("s3://", {}, 2, "'s3://'", "gs://BUCKET"),
        ("file/below", {}, 1, "Not a directory", "--artifacts"),
    ):
        refused = cli("tracking", "up", "--port", 0, "--artifacts", where, **environment)
        assert refused.returncode == code, refused.stderr
        error, told, *_ = refused.stderr.rpartition("Error: ")[2].split("Hint: ")
        assert message in error
        assert hint in told
        assert "planted-bucket-secret" not in refused.stderr


def test_a_database_that_cannot_be_used_is_told_without_its_password(cli: Cli, postgres: Postgres) -> None:
    url = postgres.database()
    postgres.sql("CREATE USER poor PASSWORD 'planted-too'")
    for wrong, message in (
        (url.replace(QUOTED, "not-the-planted-one"), "password authentication failed"),
        (url.replace("mlflow:", "nobody:"), "authentication failed"),
        (url.replace(f"mlflow:{QUOTED}", "poor:planted-too"), "permission denied"),
        (f"{url}_not", "does not exist"),
        (url.replace(str(postgres.port), str(free_port())), "Connection refused"),
    ):
        refused = cli("tracking", "up", "--port", 0, MLFLOW_BACKEND_STORE_URI=wrong, timeout_s=60)
        assert refused.returncode == 1
        assert message in refused.stderr
        assert "Hint: " in refused.stderr
        assert not any(secret in refused.stderr for secret in (PASSWORD, QUOTED, "planted"))
    for url in ("mysql://root:planted@host/x", "planted", "sqlite://", "postgresql://u:planted@host:port/x"):
        refused = cli("tracking", "up", "--port", 0, "--backend-store", url)
        assert refused.returncode == 2
        assert "planted" not in refused.stderr


def test_tables_of_an_older_mlflow_are_brought_up_to_date_and_of_a_newer_one_refused(
    up: Up, cli: Cli, tmp_path: Path
) -> None:
    started = up()
    run = _log(started["url"])
    assert cli("tracking", "down").returncode == 0
    file = tmp_path / "tracking" / "mlflow.db"
    older = _downgrade(file)
    _assert_logged(up()["url"], run)
    assert cli("tracking", "down").returncode == 0
    kept = tmp_path / "tracking" / f"mlflow.db.{older}"
    assert _revision(kept) == older != _revision(file)
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'fedcba987654'")
    refused = cli("tracking", "up", "--port", 0)
    assert refused.returncode == 1
    assert "of a newer MLflow (revision fedcba987654)" in refused.stderr


@pytest.mark.parametrize("kind", [pytest.param("sqlite", marks=long), "postgresql"])
def test_a_backup_is_restored_into_an_empty_server_and_a_model_of_it_served(
    kind: str,
    up: Up,
    cli: Cli,
    request: pytest.FixtureRequest,
    trained: tuple[newsbert.TrainResult, str],
    tmp_path: Path,
) -> None:
    stores = ["", ""]
    if kind == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        stores = [postgres.database(), postgres.database()]
    started = up("--auth", MLFLOW_BACKEND_STORE_URI=stores[0])
    account = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": started["admin_password"]}
    known = {"MLFLOW_TRACKING_URI": started["url"], **account}
    registered = cli("register", trained[0].bundle, "--model-name", "TinyModel", **known)
    assert registered.returncode == 0, registered.stderr
    made = cli("tracking", "backup", "one.tar")
    assert made.returncode == 0, made.stderr
    assert f"one.tar holds a {kind} database of MLflow" in made.stdout
    assert Path("one.tar").stat().st_mode & 0o077 == 0
    assert _files_with(PASSWORD, tmp_path / "one.tar") == []
    twice = cli("tracking", "backup", "one.tar")
    assert twice.returncode == 2
    assert "one.tar is there already" in twice.stderr
    other = {"MLFLOW_BACKEND_STORE_URI": stores[1]}
    full = cli("tracking", "restore", "one.tar", MLFLOW_BACKEND_STORE_URI=stores[0], timeout_s=60)
    assert full.returncode in {1, 2}  # it runs, and would not be empty
    restored = cli("tracking", "restore", "one.tar", "--directory", "other", **other)
    assert restored.returncode == 0, restored.stderr
    again = cli("tracking", "restore", "one.tar", "--directory", "other", **other)
    assert again.returncode == 2
    assert "is not empty" in again.stderr
    assert cli("tracking", "down").returncode == 0
    second = up("--auth", directory="other")  # it knows where its data are
    assert "admin_password" not in second
    there = {"MLFLOW_TRACKING_URI": second["url"], **account, "NEWSBERT_CACHE_DIR": str(tmp_path / "empty")}
    served = cli("serve", "locally", "TinyModel/1", "--detach", "--port", 0, "--json", **there)
    assert served.returncode == 0, served.stderr
    answer = cli("predict", "--url", json.loads(served.stdout)["url"], "the market", "--json")
    cli("serve", "stop", "--all")
    assert answer.returncode == 0, answer.stderr


def test_what_is_no_whole_backup_is_refused_before_anything_is_written(up: Up, cli: Cli, tmp_path: Path) -> None:
    _log(up()["url"])
    assert cli("tracking", "backup", "one.tar").returncode == 0
    whole = Path("one.tar").read_bytes()
    place = whole.index(b"SQLite format 3")
    broken = {
        "cut": whole[: len(whole) // 2],
        "changed": whole[:place] + b"sqlite" + whole[place + 6 :],
        "empty": b"",
        "text": b"no backup at all " * 100,
    }
    for name, content in broken.items():
        Path(f"{name}.tar").write_bytes(content)
    for name in (*broken, "missing"):
        refused = cli("tracking", "restore", f"{name}.tar", "--directory", "other")
        assert refused.returncode == 1, (name, refused.stderr)
        assert f"{name}.tar" in refused.stderr.rpartition("Error: ")[2].partition("Hint: ")[0]
        assert not Path("other").exists()
    nowhere = cli("tracking", "backup", "no/such/directory/one.tar")
    assert nowhere.returncode == 1
    assert "one.tar cannot be written" in nowhere.stderr
    assert cli("tracking", "backup", "two.tar", "--directory", "nothing").returncode == 1
    half = cli(
        "tracking", "backup", "two.tar", "--directory", "nothing", "--backend-store", "sqlite:///tracking/mlflow.db"
    )
    assert (half.returncode, "--artifacts" in half.stderr) == (2, True), half.stderr


def test_twenty_runs_at_once_lose_nothing_while_the_server_is_killed_and_started_again(
    up: Up, cli: Cli, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    store, port = postgres.database(), free_port()
    started = up("--port", port, MLFLOW_BACKEND_STORE_URI=store)
    # Clients go on for as long as a start takes; what a request of theirs was answered is what counts.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    client = mlflow.MlflowClient(started["url"])
    experiment = client.create_experiment("many")
    # Before the server is killed: a run half answered is an error to the client, who cannot know whether it exists.
    runs = [client.create_run(experiment).info.run_id for _ in range(20)]

    acknowledged: list[int] = []

    def train(number: int) -> tuple[str, list[int], list[str]]:
        run = runs[number]
        steps, files = [], []
        for step in range(30):
            with contextlib.suppress(mlflow.MlflowException):
                client.log_metric(run, "loss", float(step * number), step=step)
                steps.append(step)
                acknowledged.append(number)
            if step % 10 == 0:
                file = tmp_path / f"{number}-{step}.txt"
                file.write_text(f"{number} {step}")
                with contextlib.suppress(Exception):
                    client.log_artifact(run, str(file))
                    files.append(file.name)
        return run, steps, files

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        jobs = [pool.submit(train, number) for number in range(20)]
        _wait_until(lambda: len(acknowledged) > 100)
        keeper = psutil.Process(started["pid"])
        for process in (keeper, *keeper.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        assert len(acknowledged) < 20 * 30, "all was logged before the server was killed"
        _wait_until(lambda: background.started(started["pid"]) is None)
        up("--port", port, MLFLOW_BACKEND_STORE_URI=store)
        logged = [job.result() for job in jobs]
    assert sum(len(steps) for _, steps, _ in logged) > 20 * 25
    for number, (run, steps, files) in enumerate(logged):
        found = {each.step: each.value for each in client.get_metric_history(run, "loss")}
        assert {step: found.get(step) for step in steps} == {step: float(step * number) for step in steps}
        assert {each.path for each in client.list_artifacts(run)} >= set(files)
    # The database's password is on no command line, and in no log.
    assert not processes.with_command(QUOTED)
    logs = (tmp_path / "tracking").glob("*.log*")
    assert [log.name for log in logs if QUOTED in (text := log.read_text()) or PASSWORD in text] == []


def _log(url: str) -> tuple[str, str]:
    """Log a run with an artifact; return its id, and the experiment's."""
    import mlflow

    client = mlflow.MlflowClient(url)
    found = client.get_experiment_by_name("some")
    experiment = found.experiment_id if found else client.create_experiment("some")
    run = client.create_run(experiment)
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    client.log_metric(run.info.run_id, "accuracy", 0.75)
    client.log_text(run.info.run_id, "what was logged", "notes/some.txt")
    return run.info.run_id, experiment


def _assert_logged(url: str, run: tuple[str, str]) -> None:
    import mlflow

    client = mlflow.MlflowClient(url)
    assert client.get_run(run[0]).data.metrics == {"accuracy": 0.75}
    path = mlflow.artifacts.download_artifacts(run_id=run[0], artifact_path="notes/some.txt", tracking_uri=url)
    assert Path(path).read_text() == "what was logged"


def _listening(pid: int) -> set[tuple[str, int]]:
    """Where a process and all its children listen."""
    process = psutil.Process(pid)
    return {
        (each.laddr.ip, each.laddr.port)
        for one in (process, *process.children(recursive=True))
        for each in one.net_connections("inet")
        if each.status == psutil.CONN_LISTEN
    }


def _files_with(text: str, place: Path) -> list[Path]:
    files = [place] if place.is_file() else [each for each in place.rglob("*") if each.is_file()]
    return [file for file in files if text.encode() in file.read_bytes()]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _revision(file: Path) -> str:
    return database.revision(f"sqlite:///{file}")


def _downgrade(file: Path) -> str:
    """Have a database the tables of an MLflow before; return their revision."""
    import sqlalchemy
    from alembic import command
    from mlflow.store.db import utils

    engine = sqlalchemy.create_engine(f"sqlite:///{file}")
    config = utils._get_alembic_config(f"sqlite:///{file}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "-1")
    engine.dispose()
    return _revision(file)
