"""Companion and cascade on the command line."""

import csv
import json
from pathlib import Path

import pytest

from newsbert.bundle.bundle import Bundle
from tests.support.cli import Cli

SURE, UNSURE = "the minister and the border treaty vote", "number 3"
"""Texts that the tiny companion answers alone, and leaves to the model."""


def test_the_tier_is_shown_when_asked(cli: Cli, bundle: Bundle) -> None:
    command = ("predict", "--model", bundle.path, SURE, UNSURE)
    table = cli(*command, "--tier").stdout
    assert "tier" in table and "companion" in table and "model" in table
    document = json.loads(cli(*command, "--tier", "--json").stdout)
    assert [prediction["tier"] for prediction in document["predictions"]] == ["companion", "model"]
    plain = json.loads(cli(*command, "--json").stdout)
    assert all("tier" not in prediction for prediction in plain["predictions"])
    assert [prediction["probabilities"] for prediction in plain["predictions"]] == [
        prediction["probabilities"] for prediction in document["predictions"]
    ]


def test_without_cascade_the_model_answers_all(cli: Cli, bundle: Bundle) -> None:
    command = ("predict", "--model", bundle.path, SURE, UNSURE, "--tier", "--json")
    document = json.loads(cli(*command, "--cascade", "off").stdout)
    assert [prediction["tier"] for prediction in document["predictions"]] == ["model", "model"]


@pytest.mark.parametrize("output", ["out.csv", "out.jsonl", "out.parquet"])
def test_a_file_has_a_column_with_the_tier(cli: Cli, bundle: Bundle, tmp_path: Path, output: str) -> None:
    (tmp_path / "in.csv").write_text(f'text\n"{SURE}"\n{UNSURE}\n', encoding="utf-8")
    result = cli("predict", "--model", bundle.path, "--file", "in.csv", "--output", output, "--tier")
    assert result.returncode == 0, result.stderr
    assert "probabilities, tier" in result.stdout
    if output.endswith("csv"):
        with (tmp_path / output).open(encoding="utf-8") as stream:
            tiers = [row["tier"] for row in csv.DictReader(stream)]
    elif output.endswith("jsonl"):
        tiers = [json.loads(line)["tier"] for line in (tmp_path / output).read_text(encoding="utf-8").splitlines()]
    else:
        import pyarrow.parquet

        tiers = pyarrow.parquet.read_table(tmp_path / output)["tier"].to_pylist()
    assert tiers == ["companion", "model"]


def test_the_cascade_of_a_server_is_its_own(cli: Cli) -> None:
    result = cli("predict", "--url", "http://127.0.0.1:9", "--cascade", "off", "goal")
    assert result.returncode == 2
    assert "--url and --cascade exclude each other" in result.stderr


def test_an_unknown_cascade_is_an_error(cli: Cli, bundle: Bundle) -> None:
    result = cli("predict", "--model", bundle.path, "--cascade", "maybe", "goal")
    assert result.returncode == 2
    assert "maybe" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--unlabelled", "missing.txt"), "missing.txt"),
        (("--unlabelled", "in.csv", "--companion", "none"), "--unlabelled and --companion none exclude each other"),
        (("--companion", "quadratic"), "quadratic"),
        (("--cascade-loss", "-1"), "-1"),
    ],
)
def test_invalid_options_fail_before_training(
    cli: Cli, database: str, labelled_file: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    (tmp_path / "in.csv").write_text("text\ngoal\n", encoding="utf-8")
    result = cli("train", "--data", labelled_file, *options)
    assert result.returncode in {1, 2}
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "bundles").exists()


def test_a_training_without_companion_has_none(
    cli: Cli, database: str, labelled_file: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    result = cli(
        "train", "--data", labelled_file, "--base-model", tiny_encoder, "--max-steps", "2",
        "--max-length", "48", "--companion", "none", "--output-dir", "out", "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["parts"] == {}
    assert Bundle.read(tmp_path / "out").contract.companion is None
    assert not (tmp_path / "out" / "companion.npy").exists()


def test_unlabelled_texts_teach_the_companion(
    cli: Cli, database: str, labelled_file: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    (tmp_path / "more.csv").write_text("text\nzanzibar quokka\nquokka\nzanzibar\n", encoding="utf-8")
    weights: list[bytes] = []
    for options in ((), ("--unlabelled", "more.csv")):
        output = tmp_path / f"out{len(weights)}"
        result = cli(
            "train", "--data", labelled_file, "--base-model", tiny_encoder, "--max-steps", "2",
            "--max-length", "48", "--output-dir", output, "--json", *options,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert set(json.loads(result.stdout)["parts"]) == {"encoder alone", "companion alone"}
        weights.append((output / "companion.npy").read_bytes())
    assert weights[0] != weights[1]
