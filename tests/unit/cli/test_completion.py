"""What shells complete."""

import shlex
from pathlib import Path

import pytest

import newsbert
from tests.support.cli import Cli


def completed(cli: Cli, shell: str, line: str, **env: str) -> str:
    """What newsbert answers a shell for a line that ends where the cursor is; it says nothing but that."""
    words = shlex.split(line)
    place = str(len(words) if line.endswith(" ") else len(words) - 1)
    variables = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": place},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    # Click makes the variable's name of the program's, which is `newsbert` however it is started.
    done = cli(**variables, _NEWSBERT_COMPLETE=f"complete_{shell}", **env)
    assert done.returncode == 0
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("bash", "newsbert predict --model T"),
        ("zsh", "newsbert serve locally T"),
        ("fish", "newsbert deploy T"),
    ],
)
def test_versions_are_offered(cli: Cli, trained: tuple[newsbert.TrainResult, str], shell: str, line: str) -> None:
    assert "TinyModel/1" in completed(cli, shell, line, MLFLOW_TRACKING_URI=trained[1])


def test_runs_are_offered(cli: Cli, trained: tuple[newsbert.TrainResult, str]) -> None:
    run = trained[0].run_id[:12]
    assert run in completed(cli, "bash", "newsbert register ", MLFLOW_TRACKING_URI=trained[1])
    assert run in completed(cli, "zsh", f"newsbert train --resume {run[:3]}", MLFLOW_TRACKING_URI=trained[1])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_files_are_offered(cli: Cli, tmp_path: Path, shell: str) -> None:
    (tmp_path / "news.csv").touch()
    (tmp_path / "nested").mkdir()
    (tmp_path / "nested/new rows.csv").touch()
    offered = completed(cli, shell, "newsbert train --data n")
    assert "news.csv" in offered
    assert "nested/" in offered
    assert "nested/new rows.csv" in completed(cli, shell, "newsbert init nested/")


def test_bundles_are_offered(cli: Cli, trained: tuple[newsbert.TrainResult, str], tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to(trained[0].bundle)
    (tmp_path / "mother").mkdir()
    assert completed(cli, "bash", "newsbert benchmark m").split() == ["model/"]


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "sqlite:///nothing.db", "sqlite:///text.db", "nonsense", ""])
def test_an_unreachable_server_offers_nothing(cli: Cli, tmp_path: Path, uri: str) -> None:
    (tmp_path / "text.db").write_text("no database")
    assert completed(cli, "bash", "newsbert predict --model B", MLFLOW_TRACKING_URI=uri).strip() == ""
    assert not (tmp_path / "nothing.db").exists()


def test_an_invalid_configuration_prints_no_error(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "newsbert.toml").write_text("nonsense")
    assert completed(cli, "bash", "newsbert predict --model B").strip() == ""


def test_missing_files_are_not_offered(cli: Cli) -> None:
    assert completed(cli, "bash", "newsbert train --data nowhere/").strip() == ""
