"""A team's tracking server: closed by default, open to those who have an account."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from newsbert.core import bounded_log
from newsbert.core.settings import TrackingServerSettings
from newsbert.tracking.server import process as server
from tests.support.calls import free_port
from tests.support.cli import Cli, long
from tests.support.postgres import PASSWORD, QUOTED, Postgres
from tests.support.tracking_servers import (
    Up,
    assert_logged,
    files_with,
    gs,
    log_run,
    postgres,
    s3,
    up,
    wait_until,
)

__all__ = ["gs", "postgres", "s3", "up"]

pytestmark = pytest.mark.skipif(importlib.util.find_spec("flask_wtf") is None, reason="needs newsbert[tracking]")


def test_it_goes_up_and_down_and_has_what_was_logged(up: Up, cli: Cli, tmp_path: Path) -> None:
    started = up()
    assert started["url"].startswith("http://127.0.0.1:")
    assert (started["auth"], started["database"]) == (False, f"sqlite:///{tmp_path / 'tracking' / 'mlflow.db'}")
    run = log_run(started["url"])
    log = tmp_path / "tracking" / "server.log"
    with log.open("ab") as stream:
        stream.write(b"x" * (bounded_log.MAX_BYTES + 1))
    wait_until(lambda: log.stat().st_size < 2**20)
    status = cli("tracking", "status", "--json")
    assert status.returncode == 0, status.stderr
    assert log.stat().st_size < 2**20  # what it logs on is appended
    assert log.with_name("server.log.1").stat().st_size == bounded_log.MAX_BYTES
    assert json.loads(status.stdout)["pid"] == started["pid"]
    assert _listening(started["pid"]) == {("127.0.0.1", int(started["url"].rpartition(":")[2]))}
    # Only its user can read its files.
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
    assert_logged(up()["url"], run)


def test_in_the_foreground_it_prints_its_address_and_ends_at_ctrl_c(tmp_path: Path) -> None:
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


def test_no_other_process_gets_the_port_before_the_server_has_it(tmp_path: Path) -> None:
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


def test_without_an_account_the_error_has_a_hint_and_with_one_a_user_may_log(
    up: Up, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = up("--auth")
    admin = started["admin_password"]
    assert len(admin) > 20
    monkeypatch.setenv("MLFLOW_TRACKING_URI", started["url"])
    for credentials, message in (
        ({}, "does not take requests without a name and a password"),
        (
            {"USERNAME": "admin", "PASSWORD": "not-it"},
            "does not take the password in MLFLOW_TRACKING_PASSWORD for admin",
        ),
        ({"USERNAME": "admin", "PASSWORD": "password1234"}, "does not take the password"),  # MLflow's own, once
        ({"TOKEN": "old-token"}, "does not take the token in MLFLOW_TRACKING_TOKEN"),
    ):
        refused = cli("runs", **{f"MLFLOW_TRACKING_{name}": value for name, value in credentials.items()})
        assert refused.returncode == 1
        assert message in refused.stderr, refused.stderr
        assert not any(value in refused.stderr for name, value in credentials.items() if name != "USERNAME")
    made = json.loads(cli("tracking", "user", "alice", "--json").stdout)
    assert made["created"]
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "alice")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", made["password"])
    assert_logged(started["url"], log_run(started["url"]))
    renewed = json.loads(cli("tracking", "user", "alice", "--json").stdout)
    assert not renewed["created"]
    assert renewed["password"] != made["password"]
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", renewed["password"])
    assert cli("runs").returncode == 0
    # The passwords are in no file, and no command line shows them.
    for secret in (admin, made["password"], renewed["password"]):
        assert files_with(secret, tmp_path / "tracking") == []
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
    # A browser sends the origin of the page that posts: the server's own page may, others may not.
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
        monkeypatch.delenv(name)  # a client has none of these
    assert_logged(started["url"], log_run(started["url"]))
    assert files_with("planted-bucket-secret", tmp_path / "tracking") == []


def test_artifacts_go_through_it_to_googles(up: Up, gs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started = up("--artifacts", gs)
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    assert_logged(started["url"], log_run(started["url"]))


def test_the_doctor_writes_to_the_server_and_the_bucket_and_leaves_nothing(up: Up, s3: str, cli: Cli) -> None:
    import mlflow
    from mlflow.entities import ViewType

    url = up("--artifacts", s3)["url"]
    client = mlflow.MlflowClient(url)

    def looked(artifacts: str, uri: str = url) -> tuple[int, dict[str, Any]]:
        done = cli("doctor", "--json", NEWSBERT_TRACKING_ARTIFACTS=artifacts, MLFLOW_TRACKING_URI=uri)
        assert "planted-bucket-secret" not in done.stdout + done.stderr
        return done.returncode, {check["check"]: check for check in json.loads(done.stdout)["checks"]}

    code, checks = looked(s3)
    assert code == 0
    assert checks["tracking"]["result"] == (
        f"{url}, MLflow {mlflow.__version__}: a run and a file were written, read and deleted"
    )
    assert checks["bucket"] == {
        "check": "bucket",
        "state": "ok",
        "result": f"{s3}: a file was written, read and deleted",
        "fix": None,
    }
    experiment = client.get_experiment_by_name("newsbert")
    assert experiment is not None
    assert client.search_runs([experiment.experiment_id]) == []
    (run,) = client.search_runs([experiment.experiment_id], run_view_type=ViewType.DELETED_ONLY)
    assert client.list_artifacts(run.info.run_id) == []

    code, checks = looked("s3://nowhere/x")
    assert (code, checks["bucket"]["state"], "NoSuchBucket" in checks["bucket"]["result"]) == (0, "note", True)


def test_artifacts_that_cannot_be_written_are_an_error_before_anything_starts(
    cli: Cli, s3: str, tmp_path: Path
) -> None:
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
        error, printed_hint, *_ = refused.stderr.rpartition("Error: ")[2].split("Hint: ")
        assert message in error
        assert hint in printed_hint
        assert "planted-bucket-secret" not in refused.stderr


def test_a_database_that_cannot_be_used_is_an_error_without_its_password(cli: Cli, postgres: Postgres) -> None:
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


def _listening(pid: int) -> set[tuple[str, int]]:
    """Where a process and all its children listen."""
    process = psutil.Process(pid)
    return {
        (connection.laddr.ip, connection.laddr.port)
        for member in (process, *process.children(recursive=True))
        for connection in member.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
