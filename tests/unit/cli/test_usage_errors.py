"""Calls that cannot be parsed, and the line to type instead."""

import re
import shlex
from pathlib import Path

import pytest

from tests.support.calls import failed
from tests.support.cli import Cli


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["trian", "--epochs", "3"], "'newsbert trian'", "newsbert train --epochs 3"),
        (["serve", "local"], "'newsbert serve local'", "newsbert serve locally"),
        (["--nope"], "--nope", "newsbert --help"),
        (["predict", "--modle", "x"], "did you mean --model?", "newsbert predict --model x"),
        (["predict", "--nope"], "there is no option --nope", "newsbert predict --help"),
        (
            ["serve", "locally", "--port", "eighty"],
            "'eighty' is no valid value for '--port'",
            "newsbert serve locally --help",
        ),
        (["train", "--epochs=many"], "'many'", "newsbert train --help"),
        (["serve", "stop", "one", "two"], "one", "newsbert serve stop --help"),
    ],
)
def test_a_call_that_cannot_be_parsed_is_a_usage_error(cli: Cli, arguments: list[str], message: str, hint: str) -> None:
    result = cli(*arguments)
    failed(result, 2, message)
    assert result.stderr.splitlines()[-1] == f"Hint: {hint}"


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        (["--max_epochs", "3"], "newsbert train --epochs 3"),
        (["--num_samples=30", "--json"], "newsbert train --max-train-samples=30 --json"),
        (["--model_save_path", "my models"], "newsbert train --output-dir 'my models'"),
        (["--learning_rate", "2e-5", "--max_epochs=3"], "newsbert train --learning_rate 2e-5 --epochs=3"),
        (["--save_model", "True"], "newsbert train --help"),
        (["--vocab_file", "vocab.txt"], "newsbert train --help"),
    ],
)
def test_options_of_the_mlflow_example_get_a_hint(cli: Cli, typed: list[str], hint: str) -> None:
    refused = cli("train", *typed)
    assert refused.returncode == 2
    (old,) = re.findall(r"there is no option (--\w+): ", refused.stderr)
    assert any(word.startswith(old) for word in typed)
    assert hint in refused.stderr
    for word in shlex.split(hint)[1:]:  # they are options of it
        name = word.partition("=")[0].replace("_", "-")
        assert not word.startswith("--") or f"{name} " in cli("train", "--help").stdout


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        (["list"], "newsbert models"),
        (["config", "show", "--set"], "newsbert config --set"),
        (["archive", "A/1"], "newsbert export archive A/1"),
        (["serve", "kubernetes", "A/1"], "newsbert export kubernetes A/1"),
        (["deliver", "--to", "dev"], "newsbert pipeline --to dev"),
        (["runtimes"], "newsbert benchmark"),
        (["serve", "locally", "--model", "A/1", "--port", "0"], "newsbert serve locally A/1 --port 0"),
        (["export", "archive", "--model=A/1"], "newsbert export archive A/1"),
        (["inspect-image", "--model", "A/1"], "newsbert inspect-image A/1"),
        (["predict", "--data", "a.csv", "--output", "b.csv"], "newsbert predict --file a.csv --output b.csv"),
        (["train", "--file", "a.csv"], "newsbert train --data a.csv"),
        (["init", "--input", "a.csv"], "newsbert init a.csv"),
        (["ui"], "mlflow ui --backend-store-uri sqlite:///mlflow.db"),
        (["serve", "BertModel/2", "--port", "0"], "newsbert serve locally BertModel/2 --port 0"),
        (["serve", "--port", "9000"], "newsbert serve locally --port 9000"),
        (["serve", "list"], "newsbert serve status"),
        (["tracking", "start", "--detach"], "newsbert tracking up --detach"),
        (["train", "--lr", "2e-5"], "newsbert train --learning-rate 2e-5"),
        (["train", "--samples", "8"], "newsbert train --max-train-samples 8"),
        (["train", "--output", "b"], "newsbert train --output-dir b"),
        (["train", "--workers", "4"], "newsbert train --ray-workers 4"),
        (["serve", "locally", "--review-below", "0.8"], "newsbert serve locally --review-threshold 0.8"),
        (["evaluate", "A/1", "--against", "A/2"], "newsbert evaluate A/1 --compare-to A/2"),
        (["inspect-image", "A/1", "--bill"], "newsbert inspect-image A/1 --sbom"),
        (["predict", "news.csv"], "newsbert predict --file news.csv --output predictions.jsonl"),
    ],
)
def test_common_mistakes_get_a_hint(cli: Cli, tmp_path: Path, typed: list[str], hint: str) -> None:
    (tmp_path / "news.csv").write_text("text,label\n", encoding="utf-8")
    refused = cli(*typed)
    assert refused.returncode == 2
    assert f"Hint: {hint}" in " ".join(refused.stderr.split())


def test_data_is_an_argument_or_an_option(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "news.csv").write_text("text,label\n", encoding="utf-8")
    failed(cli("train", "news.csv", "--data", "other.csv"), 2, "news.csv", "other.csv")
    failed(cli("train", "nowhere.csv"), 2, "nowhere.csv")
    failed(cli("evaluate", "news.csv"), 1, "no tracking database")  # the rows are taken; there is no model
    failed(cli("evaluate"), 2, "no rows to score")
    failed(cli("evaluate", "A/1", "--model", "B/1", "--data", "news.csv"), 2, "A/1", "B/1")


def test_options_may_be_written_with_underscores(cli: Cli) -> None:
    refused = cli("train", "--base_model=nowhere", "--max_steps", "-1")
    assert refused.returncode == 2
    assert "the option --max-steps: -1 cannot be" in refused.stderr
