"""`newsbert init` looks at rows and writes a newsbert.toml; `newsbert config` tells which settings hold."""

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


def _inited(cli: Cli, *arguments: object) -> dict[str, Any]:
    done = cli("init", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_rows_with_usual_columns_need_nothing_but_their_place(cli: Cli, labelled_file: Path, tmp_path: Path) -> None:
    found = _inited(cli, labelled_file)
    assert (found["text_column"], found["label_column"], found["model_name"]) == (None, None, "rows")
    assert found["rows"] == {"all": dict.fromkeys(LABELS, 30)}
    assert found["tokens"]["p50"] <= found["tokens"]["p95"] <= found["tokens"]["most"] < 30
    written = tomllib.loads((tmp_path / "newsbert.toml").read_text(encoding="utf-8"))
    assert written["train"] == {"data": str(labelled_file)}
    assert config.resolve(TrainSettings) == TrainSettings(data=str(labelled_file))
    assert config.model_name() == "rows"
    shown = cli("init", "--force", labelled_file)
    assert "Next: newsbert train" in shown.stderr
    assert re.search(r"sum *│ *90", shown.stdout)


def test_every_line_behind_a_mark_is_a_default_and_can_be_put_into_use(cli: Cli, tmp_path: Path) -> None:
    _inited(cli)
    lines = (tmp_path / "newsbert.toml").read_text(encoding="utf-8").splitlines()
    used = [re.sub(r"^# ([a-z_]+ = .+)$", r"\1", line) for line in lines]
    assert len(set(used) - set(lines)) >= 25
    (tmp_path / "newsbert.toml").write_text("\n".join(used), encoding="utf-8")
    for section in SECTIONS.values():
        assert config.resolve(section) == section()  # data is "sample", as by default


def test_unusual_columns_are_guessed_and_what_to_look_at_is_told(cli: Cli, tmp_path: Path) -> None:
    rows = [f"{n},Sport,A goal in cup number {n}" for n in range(30)]
    rows += ["31,Économie,Stocks fall", "32,Sport,Stocks fall", "33,Sport,A goal in cup number 1"]
    (tmp_path / "rows.csv").write_text("id,kind,headline\n" + "\n".join(rows) + "\n", encoding="utf-8")
    found = _inited(cli, "rows.csv", "--model-name", "Kinds")
    assert (found["text_column"], found["label_column"]) == ("headline", "kind")
    assert (found["duplicates"], found["conflicting_labels"], found["leaked"]) == (2, 1, 0)
    notes = " ".join(found["notes"])
    for said in ("'Économie' has 1 row:", "'Sport' has 32 rows", "2 rows with the text", "1 text with more than one"):
        assert said in notes
    train = tomllib.loads((tmp_path / "newsbert.toml").read_text(encoding="utf-8"))["train"]
    assert train == {"data": "rows.csv", "text_column": "headline", "label_column": "kind"}


def test_splits_that_share_rows_and_long_texts_are_told(cli: Cli, tmp_path: Path) -> None:
    long = " ".join(["market"] * 200)
    (tmp_path / "rows").mkdir()
    for name, rows in {"train": ["a goal,0", f"{long},1", f"{long} two,1"], "test": ["a goal,0", "profit,1"]}.items():
        (tmp_path / "rows" / f"{name}.csv").write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    found = _inited(cli, "rows", "--labels", "Sport,Money")
    assert found["rows"] == {"test": {"Sport": 1, "Money": 1}, "train": {"Sport": 1, "Money": 2}}
    assert (found["leaked"], found["max_length"], found["truncated_fraction"]) == (1, 256, 0.0)
    train = tomllib.loads((tmp_path / "newsbert.toml").read_text(encoding="utf-8"))["train"]
    assert train == {"data": "rows", "labels": ["Sport", "Money"], "max_length": 256}


@pytest.mark.parametrize(
    ("content", "arguments", "code", "said"),
    [
        ("text\na goal\n", (), 1, "the only column is 'text'"),
        ("label,number\na,1\nb,2\n", (), 1, "no column"),
        ("text,label\na goal,a\nstocks,b\n", ("--model-name", "a/b"), 2, "'a/b'"),
        ("text,label\na goal,a\nstocks,b\n", ("--text-column", "body"), 1, "no column 'body'"),
    ],
)
def test_what_cannot_be_trained_on_writes_nothing(
    cli: Cli, tmp_path: Path, content: str, arguments: tuple[str, ...], code: int, said: str
) -> None:
    (tmp_path / "rows.csv").write_text(content, encoding="utf-8")
    done = cli("init", "rows.csv", *arguments)
    assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (code, True, False), done.stderr
    assert [each.name for each in tmp_path.iterdir() if "newsbert.toml" in each.name] == []


def test_a_file_that_is_there_stays_unless_it_is_to_be_written_over(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "newsbert.toml").write_text('model_name = "Mine"\n')
    refused = cli("init")
    assert (refused.returncode, "the same command with --force" in refused.stderr) == (2, True)
    assert (tmp_path / "newsbert.toml").read_text() == 'model_name = "Mine"\n'
    assert _inited(cli, "--force")["model_name"] == "sample"


def test_every_setting_is_shown_with_what_it_comes_from_and_no_password(cli: Cli, tmp_path: Path) -> None:
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
    assert tables["train"]["tune"] == {"value": "full", "origin": None}
    assert tables[""]["experiment"] == {"value": "mine", "origin": "MLFLOW_EXPERIMENT_NAME"}
    assert tables[""]["model_name"] == {"value": "News", "origin": "newsbert.toml"}
    assert tables[""]["tracking_uri"]["value"] == "http://***@127.0.0.1:9"
    assert tables["environments.live"]["target"] == {"value": "kubernetes", "origin": "newsbert.toml"}
    only_set = cli("config", "--set")
    assert "train.epochs" in only_set.stdout and "train.tune" not in only_set.stdout
    (tmp_path / "newsbert.toml").write_text("[train]\nepoch = 2\n")
    wrong = cli("config")
    assert (wrong.returncode, "'epoch'" in wrong.stderr) == (2, True)
