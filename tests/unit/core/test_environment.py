"""Variables that are no settings: directories, and what a child process gets."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from newsbert.core import environment


def test_directories_follow_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, own, shared, find in (
        ("cache", "NEWSBERT_CACHE_DIR", "XDG_CACHE_HOME", environment.cache_dir),
        ("state", "NEWSBERT_STATE_DIR", "XDG_STATE_HOME", environment.state_dir),
    ):
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv(own, str(tmp_path / "own"))
        assert find() == tmp_path / "own"
        monkeypatch.delenv(own)
        monkeypatch.setenv(shared, str(tmp_path / name))
        assert find() == tmp_path / name / "newsbert"
        monkeypatch.delenv(shared)
        assert find().is_relative_to(tmp_path)
        assert find().name == "newsbert"


def test_child_processes_inherit_the_environment_with_additions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWSBERT_TEST_A", "1")
    monkeypatch.setenv("NEWSBERT_TEST_B", "2")
    child = environment.child_environment(NEWSBERT_TEST_B="3", NEWSBERT_TEST_C="4")
    assert (child["NEWSBERT_TEST_A"], child["NEWSBERT_TEST_B"], child["NEWSBERT_TEST_C"]) == ("1", "3", "4")


def test_mlflow_is_silenced_unless_the_user_configures_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    monkeypatch.delenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", raising=False)
    environment.silence_mlflow()
    child = environment.child_environment()
    assert child["MLFLOW_DISABLE_TELEMETRY"] == "false"
    assert child["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] == "false"
    assert environment.mlflow_run_id() is None
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    assert environment.mlflow_run_id() == "0" * 32
    monkeypatch.delenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", raising=False)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user without a home")
def test_directories_need_no_home_if_the_variables_are_set() -> None:
    """As in a container, where the user's number has no name."""
    program = (
        "import os; from newsbert.core.environment import cache_dir, state_dir\n"
        "os.setuid(54321); print(state_dir(), cache_dir())"
    )

    def run(**variables: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", program]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=variables)

    named = run(NEWSBERT_STATE_DIR="/s", NEWSBERT_CACHE_DIR="/c")
    assert (named.returncode, named.stdout) == (0, "/s /c\n"), named.stderr
    assert "UsageError: this user has no home directory" in run().stderr
