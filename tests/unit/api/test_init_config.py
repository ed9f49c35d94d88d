"""`newsbert init` looks at rows and writes a newsbert.toml; `newsbert config` shows which settings hold."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from newsbert.core import config
from newsbert.core.settings import ImageSettings, ServeSettings, TrackingSettings, TrainSettings
from tests.support.cli import Cli
from tests.support.tiny_model import LABELS

SECTIONS = {"": TrackingSettings, "train": TrainSettings, "serve": ServeSettings, "image": ImageSettings}


def _init(cli: Cli, *arguments: object) -> dict[str, Any]:
    done = cli("init", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_usual_columns_need_only_the_path(cli: Cli, labelled_file: Path, tmp_path: Path) -> None:
    profile = _init(cli, labelled_file)
    assert (profile["text_column"], profile["label_column"], profile["model_name"]) == (None, None, "rows")
    assert profile["rows"] == {"all": dict.fromkeys(LABELS, 30)}
    assert profile["tokens"]["p50"] <= profile["tokens"]["p95"] <= profile["tokens"]["most"] < 30
    written = tomllib.loads((tmp_path / "newsbert.toml").read_text(encoding="utf-8"))
    assert written["train"] == {"data": str(labelled_file)}
    assert config.resolve(TrainSettings) == TrainSettings(data=str(labelled_file))
    assert config.model_name() == "rows"
    shown = cli("init", "--force", labelled_file)
    assert "Next: newsbert train" in shown.stderr
    assert re.search(r"sum *│ *90", shown.stdout)


def test_every_commented_line_is_a_valid_default(cli: Cli, tmp_path: Path) -> None:
    _init(cli)
    lines = (tmp_path / "newsbert.toml").read_text(encoding="utf-8").splitlines()
    used = [re.sub(r"^# ([a-z_]+ = .+)$", r"\1", line) for line in lines]
    assert len(set(used) - set(lines)) >= 25
    (tmp_path / "newsbert.toml").write_text("\n".join(used), encoding="utf-8")
    for section in SECTIONS.values():
        assert config.resolve(section) == section()  # data is "sample", as by default


def test_unusual_columns_are_guessed_with_notes(cli: Cli, tmp_path: Path) -> None:
    rows = [f"{n},Sport,A goal in cup number {n}" for n in range(30)]
    rows += ["31,Économie,Stocks fall", "32,Sport,Stocks fall", "33,Sport,A goal in cup number 1"]
    (tmp_path / "rows.csv").write_text("id,kind,headline\n" + "\n".join(rows) + "\n", encoding="utf-8")
    profile = _init(cli, "rows.csv", "--model-name", "Kinds")
    assert (profile["text_column"], profile["label_column"]) == ("headline", "kind")
    assert (profile["duplicates"], profile["conflicting_labels"], profile["leaked"]) == (2, 1, 0)
    notes = " ".join(profile["notes"])
    for message in (
        "'Économie' has 1 row:",
        "'Sport' has 32 rows",
        "2 rows with the text",
        "1 text with more than one",
    ):
        assert message in notes
    train = tomllib.loads((tmp_path / "newsbert.toml").read_text(encoding="utf-8"))["train"]
    assert train == {"data": "rows.csv", "text_column": "headline", "label_column": "kind"}


def test_leaked_rows_and_long_texts_are_noted(cli: Cli, tmp_path: Path) -> None:
    long = " ".join(["market"] * 200)
    (tmp_path / "rows").mkdir()
    for name, rows in {"train": ["a goal,0", f"{long},1", f"{long} two,1"], "test": ["a goal,0", "profit,1"]}.items():
        (tmp_path / "rows" / f"{name}.csv").write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    profile = _init(cli, "rows", "--labels", "Sport,Money")
    assert profile["rows"] == {"test": {"Sport": 1, "Money": 1}, "train": {"Sport": 1, "Money": 2}}
    assert (profile["leaked"], profile["max_length"], profile["truncated_fraction"]) == (1, 256, 0.0)
    train = tomllib.loads((tmp_path / "newsbert.toml").read_text(encoding="utf-8"))["train"]
    assert train == {"data": "rows", "labels": ["Sport", "Money"], "max_length": 256}


@pytest.mark.parametrize(
    ("content", "arguments", "code", "message"),
    [
        ("text\na goal\n", (), 1, "the only column is 'text'"),
        ("label,number\na,1\nb,2\n", (), 1, "no column"),
        ("text,label\na goal,a\nstocks,b\n", ("--model-name", "a/b"), 2, "'a/b'"),
        ("text,label\na goal,a\nstocks,b\n", ("--text-column", "body"), 1, "no column 'body'"),
    ],
)
def test_untrainable_data_writes_no_file(
    cli: Cli, tmp_path: Path, content: str, arguments: tuple[str, ...], code: int, message: str
) -> None:
    (tmp_path / "rows.csv").write_text(content, encoding="utf-8")
    done = cli("init", "rows.csv", *arguments)
    assert (done.returncode, message in done.stderr, "Traceback" in done.stderr) == (code, True, False), done.stderr
    assert [file.name for file in tmp_path.iterdir() if "newsbert.toml" in file.name] == []


def test_an_existing_file_is_replaced_only_with_force(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "newsbert.toml").write_text('model_name = "Mine"\n')
    refused = cli("init")
    assert (refused.returncode, "the same command with --force" in refused.stderr) == (2, True)
    assert (tmp_path / "newsbert.toml").read_text() == 'model_name = "Mine"\n'
    assert _init(cli, "--force")["model_name"] == "sample"


def test_settings_are_shown_with_their_source_and_without_passwords(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "newsbert.toml").write_text(
        'tracking_uri = "http://somebody:planted-secret@127.0.0.1:9"\nmodel_name = "News"\n'
        '[train]\nepochs = 2\n[image]\npip_options = ["index-url=http://me:planted-secret@127.0.0.1:9/simple"]\n'
        '[environments.live]\ntarget = "kubernetes"\n'
    )
    done = cli("config", "--json", NEWSBERT_TRAIN_SEED="7", MLFLOW_EXPERIMENT_NAME="mine")
    assert done.returncode == 0, done.stderr
    assert "planted-secret" not in done.stdout
    tables = json.loads(done.stdout)["settings"]
    assert tables["train"]["epochs"] == {"value": 2.0, "origin": "newsbert.toml"}
    assert tables["train"]["seed"] == {"value": 7, "origin": "NEWSBERT_TRAIN_SEED"}
    assert tables["train"]["tune"] == {"value": "auto", "origin": None}
    assert tables[""]["experiment"] == {"value": "mine", "origin": "MLFLOW_EXPERIMENT_NAME"}
    assert tables[""]["model_name"] == {"value": "News", "origin": "newsbert.toml"}
    assert tables[""]["tracking_uri"]["value"] == "http://***@127.0.0.1:9"
    assert tables["environments.live"]["target"] == {"value": "kubernetes", "origin": "newsbert.toml"}
    only_set = cli("config", "--set")
    assert "train.epochs" in only_set.stdout and "train.tune" not in only_set.stdout
    (tmp_path / "newsbert.toml").write_text("[train]\nepoch = 2\n")
    wrong = cli("config")
    assert (wrong.returncode, "'epoch'" in wrong.stderr) == (2, True)
