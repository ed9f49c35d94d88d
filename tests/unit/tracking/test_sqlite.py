"""The tracking database on this machine: who makes it, and the errors when it cannot be used."""

import contextlib
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from newsbert.errors import NotFoundError, TrackingError
from newsbert.tracking import locate
from tests.support.cli import Cli

KILLED_WHILE_WRITING = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA cache_size = 1")  # what it writes is in the file before it is done
connection.execute("BEGIN")
for number in range(2000):
    connection.execute("INSERT INTO experiment_tags VALUES (?, 'half done', 0)", (f"tag {number}",))
os.kill(os.getpid(), signal.SIGKILL)
"""

OPEN = """
import sys
from newsbert.tracking import locate
locate.connect(sys.argv[1], create=True)
print("ready")
"""


def _make_uri(file: Path) -> str:
    return f"sqlite:///{file}"


def _open(uri: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", OPEN, uri], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_concurrent_first_commands_create_one_database(tmp_path: Path) -> None:
    uri = _make_uri(tmp_path / "new" / "mlflow.db")
    processes = [_open(uri) for _ in range(4)]
    for process in processes:
        stdout, stderr = process.communicate(timeout=120)
        assert (process.returncode, stdout) == (0, "ready\n"), stderr
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["mlflow.db"]
    locate.connect(uri)


def test_a_killed_first_command_leaves_no_partial_database(tmp_path: Path) -> None:
    file = tmp_path / "new" / "mlflow.db"
    process = _open(_make_uri(file))
    # It is killed as soon as there is anything of a database.
    while not any(made.stat().st_size for made in file.parent.rglob("mlflow.db")):
        assert process.poll() is None
    process.kill()
    process.communicate(timeout=30)
    second = _open(_make_uri(file))
    stdout, stderr = second.communicate(timeout=120)
    assert (second.returncode, stdout) == (0, "ready\n"), stderr
    assert [entry.name for entry in file.parent.iterdir()] == ["mlflow.db"]


def test_an_interrupted_transaction_is_rolled_back(tmp_path: Path, cli: Cli) -> None:
    file = tmp_path / "mlflow.db"
    locate.connect(_make_uri(file), create=True)
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, file], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "mlflow.db-journal").stat().st_size
    run = cli("runs")
    assert run.returncode == 0, run.stderr
    assert not (tmp_path / "mlflow.db-journal").exists()
    with contextlib.closing(sqlite3.connect(file)) as database:
        assert database.execute("SELECT count(*) FROM experiment_tags WHERE value = 'half done'").fetchone() == (0,)


@pytest.mark.parametrize(
    "command", [("predict", "text"), ("build-image",), ("serve", "locally"), ("register", "--model-name", "M")]
)
def test_reading_creates_no_database(command: tuple[str, ...], tmp_path: Path, cli: Cli) -> None:
    uri = _make_uri(tmp_path / "typo" / "mlflow.db")
    run = cli(*command, MLFLOW_TRACKING_URI=uri, NEWSBERT_SERVE_PORT="0")
    assert run.returncode == 1
    assert f"no tracking database '{tmp_path / 'typo' / 'mlflow.db'}'" in run.stderr
    assert "export MLFLOW_TRACKING_URI=http://HOST:5000; or make a model here: newsbert train" in run.stderr
    assert not (tmp_path / "typo").exists()


def test_an_empty_file_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    with pytest.raises(NotFoundError, match="no tracking database"):
        locate.connect(_make_uri(tmp_path / "mlflow.db"))
    locate.connect(_make_uri(tmp_path / "mlflow.db"), create=True)
    locate.connect(_make_uri(tmp_path / "mlflow.db"))


# MLflow tries these for two minutes; the test's own timeout is below that.
@pytest.mark.timeout(60)
@pytest.mark.parametrize("create", [True, False])
def test_an_invalid_database_is_an_error_at_once(tmp_path: Path, create: bool) -> None:
    (tmp_path / "text").write_text("no database")
    (tmp_path / "directory").mkdir()
    for file in (tmp_path / "text", tmp_path / "directory", tmp_path / "text" / "mlflow.db", tmp_path / ("x" * 300)):
        with pytest.raises(TrackingError, match="cannot be used") as caught:
            locate.connect(_make_uri(file), create=create)
        assert caught.value.hint


@pytest.mark.timeout(60)
def test_an_unwritable_directory_is_an_error_at_once() -> None:
    with pytest.raises(TrackingError, match=r"/proc/mlflow\.db' cannot be used"):  # not even root can write there
        locate.connect("sqlite:////proc/mlflow.db", create=True)
