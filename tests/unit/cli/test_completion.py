"""What shells complete."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import newsbert
from newsbert.core import environment, uris
from newsbert.core.identifiers import SHORT_RUN_ID_DIGITS
from newsbert.core.settings import TrackingSettings
from newsbert.tracking import experiment, locate, name_cache
from tests.support.cli import Cli


@pytest.fixture
def database(trained: tuple[newsbert.TrainResult, str], tmp_path: Path) -> Path:
    """A copy of the tracking server with the trained model."""
    return Path(shutil.copy(trained[1].removeprefix("sqlite:///"), tmp_path / "copy.db"))


def completed(cli: Cli, shell: str, line: str, **env: str) -> str:
    """What newsbert answers a shell for a line that ends where the cursor is; it prints nothing else."""
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
def test_versions_that_a_command_has_listed_are_offered(cli: Cli, database: Path, shell: str, line: str) -> None:
    uri = uris.sqlite_uri(database)
    assert completed(cli, shell, line, MLFLOW_TRACKING_URI=uri).strip() in {"", "_files"}
    assert cli("models", MLFLOW_TRACKING_URI=uri).returncode == 0
    database.unlink()  # so nothing but the command's names can be read
    assert "TinyModel/1" in completed(cli, shell, line, MLFLOW_TRACKING_URI=uri)
    assert "TinyModel" not in completed(cli, shell, line, MLFLOW_TRACKING_URI="sqlite:////elsewhere.db")


def test_runs_that_a_command_has_listed_are_offered(
    cli: Cli, trained: tuple[newsbert.TrainResult, str], database: Path
) -> None:
    uri = uris.sqlite_uri(database)
    assert cli("runs", MLFLOW_TRACKING_URI=uri).returncode == 0
    database.unlink()
    run = trained[0].run_id[:SHORT_RUN_ID_DIGITS]
    assert run in completed(cli, "bash", "newsbert register ", MLFLOW_TRACKING_URI=uri)
    assert run in completed(cli, "zsh", f"newsbert train --resume {run[:3]}", MLFLOW_TRACKING_URI=uri)
    line = f"newsbert register --experiment another {run[:3]}"
    assert run not in completed(cli, "bash", line, MLFLOW_TRACKING_URI=uri)


def test_a_version_and_an_alias_are_offered_when_they_are_registered(
    cli: Cli, trained: tuple[newsbert.TrainResult, str], database: Path
) -> None:
    uri = uris.sqlite_uri(database)
    done = cli("register", trained[0].run_id, "--model-name", "Other", "--alias", "dev", MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 0, done.stderr
    offered = completed(cli, "bash", "newsbert deploy Other", MLFLOW_TRACKING_URI=uri)
    assert set(offered.split()) == {"Other/1", "Other@dev"}


def test_a_run_is_offered_when_it_starts(cli: Cli, tmp_path: Path) -> None:
    uri = uris.sqlite_uri(tmp_path / "new.db")
    tracker = locate.connect(uri, create=True)
    with experiment.start_run(tracker, system_metrics=False) as run:
        assert run.run_id[:SHORT_RUN_ID_DIGITS] in completed(
            cli, "bash", "newsbert train --resume ", MLFLOW_TRACKING_URI=uri
        )


def test_names_of_a_relative_database_are_those_of_its_directory(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_cache.add("models", TrackingSettings(), {"Here/1": 1})
    assert completed(cli, "bash", "newsbert deploy ").split() == ["Here/1"]
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    assert completed(cli, "bash", "newsbert deploy ").strip() == ""


def test_bash_itself_inserts_a_name(tmp_path: Path) -> None:
    name_cache.add("models", TrackingSettings(), {"Tiny/1": 1, "Tiny@dev": 2, "Large/1": 3})
    script = """
        eval "$(_NEWSBERT_COMPLETE=source_bash newsbert)"
        COMP_WORDS=(newsbert deploy T) COMP_CWORD=2
        $(complete -p newsbert | grep -o '_[a-z_]*completion') newsbert
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True, text=True, check=True, cwd=tmp_path,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.split() == ["Tiny@dev", "Tiny/1"]


EVIL = [
    "$(touch planted)/1", "`touch planted`@dev", "Bert Model/1", "Bert;id/1", "Bert/x", "Bert/1/2", "Bert@a b", "Bert",
    "-Bert/1", "\x1b]0;title\x07/1", "B\u00e9rt/1", "Bert@$(id)", "Bert@v1", "../1", "", "@", "/",
]  # fmt: skip


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_attack_names_that_a_shell_or_newsbert_would_misread_are_left_out(cli: Cli, shell: str) -> None:
    name_cache.add("models", TrackingSettings(), dict.fromkeys([*EVIL, "Good/1"], 1))
    name_cache.add("runs", TrackingSettings(), dict.fromkeys([*EVIL, "0" * 32], 1))
    files = {file.name.partition("-")[0]: file for file in environment.cache_dir().glob("names/*.json")}
    for kind, good in (("models", "Good/1"), ("runs", "0" * 32)):
        assert {"-Bert/1", "Bert/x", "Bert@v1", "Bert@$(id)"}.isdisjoint(json.loads(files[kind].read_text()))
        assert good in files[kind].read_text()
        files[kind].write_text(json.dumps(dict.fromkeys([*EVIL, good], 1)))  # a file that another program wrote
    for line, good in (("newsbert deploy ", "Good/1"), ("newsbert register ", "0" * 8)):
        offered = [row for row in completed(cli, shell, line).splitlines() if row]
        assert len(offered) == 1
        assert good in offered[0]


@pytest.mark.parametrize("content", ["", "nonsense", "[]", '{"Old/1": "x"}', '{"Old/1": 1'])
def test_a_damaged_file_of_names_offers_nothing_and_is_written_anew(cli: Cli, content: str) -> None:
    name_cache.add("models", TrackingSettings(), {"Old/1": 1})
    (file,) = environment.cache_dir().glob("names/*.json")
    file.write_text(content)
    assert completed(cli, "bash", "newsbert deploy ").strip() == ""
    name_cache.add("models", TrackingSettings(), {"New/1": 1})
    assert completed(cli, "bash", "newsbert deploy ").split() == ["New/1"]


def test_the_latest_names_stay(cli: Cli) -> None:
    name_cache.add("models", TrackingSettings(), {f"Model/{number}": number for number in range(1, 1201)})
    name_cache.add("models", TrackingSettings(), {"Model/2000": 2000})
    names = list(name_cache.read("models", TrackingSettings()))
    assert names == ["Model/2000", *(f"Model/{number}" for number in range(1200, 201, -1))]
    assert completed(cli, "bash", "newsbert deploy ").split() == names[:50]


def test_a_cache_that_cannot_be_written_stops_no_command(
    cli: Cli, trained: tuple[newsbert.TrainResult, str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    done = cli("models", MLFLOW_TRACKING_URI=trained[1], NEWSBERT_CACHE_DIR=str(tmp_path / "file"))
    assert done.returncode == 0
    assert "TinyModel/1" in done.stdout


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


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "sqlite:///nothing.db", "nonsense", "http://[", ""])
def test_a_server_of_which_no_names_were_seen_offers_nothing(cli: Cli, tmp_path: Path, uri: str) -> None:
    assert completed(cli, "bash", "newsbert predict --model B", MLFLOW_TRACKING_URI=uri).strip() == ""
    assert not (tmp_path / "nothing.db").exists()


def test_a_wrong_configuration_is_no_error_while_typing(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "newsbert.toml").write_text("nonsense")
    assert completed(cli, "bash", "newsbert predict --model B").strip() == ""


def test_files_that_are_not_there_are_not_offered(cli: Cli) -> None:
    assert completed(cli, "bash", "newsbert train --data nowhere/").strip() == ""
