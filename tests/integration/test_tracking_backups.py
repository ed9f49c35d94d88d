"""A team's tracking server loses nothing: through kills, an upgrade, a backup and its restoration."""

import concurrent.futures
import contextlib
import importlib.util
import json
import sqlite3
from pathlib import Path

import psutil
import pytest

import newsbert
from newsbert.core import processes as background
from newsbert.tracking.server import database
from tests.support import processes
from tests.support.calls import free_port
from tests.support.cli import Cli, long
from tests.support.postgres import PASSWORD, QUOTED, Postgres
from tests.support.tracking_servers import Up, assert_logged, files_with, log_run, postgres, up, wait_until

__all__ = ["postgres", "up"]

pytestmark = pytest.mark.skipif(importlib.util.find_spec("flask_wtf") is None, reason="needs newsbert[tracking]")


def test_tables_of_an_older_mlflow_are_brought_up_to_date_and_of_a_newer_one_refused(
    up: Up, cli: Cli, tmp_path: Path
) -> None:
    started = up()
    run = log_run(started["url"])
    assert cli("tracking", "down").returncode == 0
    file = tmp_path / "tracking" / "mlflow.db"
    older = _downgrade(file)
    assert_logged(up()["url"], run)
    assert cli("tracking", "down").returncode == 0
    backup = tmp_path / "tracking" / f"mlflow.db.{older}"
    assert _revision(backup) == older != _revision(file)
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
    assert files_with(PASSWORD, tmp_path / "one.tar") == []
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
    log_run(up()["url"])
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
        wait_until(lambda: len(acknowledged) > 100)
        keeper = psutil.Process(started["pid"])
        for process in (keeper, *keeper.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        assert len(acknowledged) < 20 * 30, "all was logged before the server was killed"
        wait_until(lambda: background.started(started["pid"]) is None)
        up("--port", port, MLFLOW_BACKEND_STORE_URI=store)
        logged = [job.result() for job in jobs]
    assert sum(len(steps) for _, steps, _ in logged) > 20 * 25
    for number, (run, steps, files) in enumerate(logged):
        values = {entry.step: entry.value for entry in client.get_metric_history(run, "loss")}
        assert {step: values.get(step) for step in steps} == {step: float(step * number) for step in steps}
        assert {file.path for file in client.list_artifacts(run)} >= set(files)
    # The database's password is on no command line, and in no log.
    assert not processes.with_command(QUOTED)
    logs = (tmp_path / "tracking").glob("*.log*")
    assert [log.name for log in logs if QUOTED in (text := log.read_text()) or PASSWORD in text] == []


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
