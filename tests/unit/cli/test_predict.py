"""`newsbert predict` as a user calls it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from newsbert.bundle.bundle import Bundle
from newsbert.inference.model import Model
from tests.support.calls import expected, failed
from tests.support.cli import Cli
from tests.support.tiny_model import LABELS


def test_texts_are_classified_by_a_bundle(cli: Cli, bundle: Bundle) -> None:
    texts = ["goal for the team", "Élections: bank & profit", "--json"]
    result = cli("predict", "--model", bundle.path, "--json", "--", *texts)
    assert (result.returncode, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    assert document == {"model": bundle.path.name, "predictions": expected(bundle, texts)}


def test_stdout_is_one_table_of_texts_and_predictions(cli: Cli, bundle: Bundle, tmp_path: Path) -> None:
    long = "goal " * 50
    path = shutil.copytree(bundle.path, tmp_path / "a [bold]name")
    result = cli("predict", "--model", path, "stocks market [bold]bank", long)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[0].strip() == "a [bold]name"
    first, second = Model.from_directory(bundle.path).predict(["stocks market [bold]bank", long])
    assert "stocks market [bold]bank" in result.stdout
    assert long.strip() not in result.stdout
    for label in LABELS:
        assert label in result.stdout
    for prediction in (first, second):
        row = next(line for line in result.stdout.splitlines() if f"{prediction.score:.3f}" in line)
        assert prediction.label in row
        assert ("yes" if prediction.review else "no") in row.replace("│", " ").split()


def test_the_review_threshold_applies_to_texts_and_files(cli: Cli, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\ngoal team\nx\n", encoding="utf-8")
    for below, review in (("0", False), ("1", True)):
        command = ("predict", "--model", bundle.path, "--review-threshold", below)
        document = json.loads(cli(*command, "goal team", "x", "--json").stdout)
        assert [prediction["review"] for prediction in document["predictions"]] == [review, review]
        assert cli(*command, "--file", "in.csv", "--output", f"{below}.csv").returncode == 0
        lines = (tmp_path / f"{below}.csv").read_text(encoding="utf-8").splitlines()
        assert lines[0] == "text,label,score,review,probabilities"
        assert [f",{str(review).lower()}," in line for line in lines[1:]] == [True, True]
    (tmp_path / "newsbert.toml").write_text("[serve]\nreview_threshold = 1\n")
    document = json.loads(cli("predict", "--model", bundle.path, "goal team", "--json").stdout)
    assert document["predictions"][0]["review"] is True
    failed(cli("predict", "--model", bundle.path, "--review-threshold", "1.5", "x"), 2, "1.5 cannot be")
    failed(cli("predict", "--url", "http://127.0.0.1:1", "--review-threshold", "0.5", "x"), 2, "exclude each other")


@pytest.mark.parametrize(
    ("arguments", "stdin"), [([], "goal\n\nbank profit"), (["-"], "\ufeffgoal\r\n  bank profit  \r\n\t\n")]
)
def test_lines_of_standard_input_are_classified(cli: Cli, bundle: Bundle, arguments: list[str], stdin: str) -> None:
    result = cli("predict", "--model", bundle.path, "--json", *arguments, stdin=stdin)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["predictions"] == expected(bundle, ["goal", "bank profit"])


@pytest.mark.parametrize("stdin", ["", "\n \n"])
def test_an_empty_standard_input_is_a_usage_error(cli: Cli, bundle: Bundle, stdin: str) -> None:
    failed(cli("predict", "--model", bundle.path, stdin=stdin), 2, "standard input holds no text")


def test_a_closed_standard_input_is_a_usage_error(bundle: Bundle) -> None:
    command = f"exec {sys.executable} -m newsbert predict --model '{bundle.path}' <&-"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    failed(result, 2, "no text")


def test_standard_input_in_another_encoding_is_a_usage_error(bundle: Bundle) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "newsbert", "predict", "--model", str(bundle.path)],
        input="café".encode("latin-1"),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 2
    assert b"not valid UTF-8" in result.stderr


@pytest.mark.parametrize(
    ("texts", "message"), [(["  "], "the text is empty"), (["goal", "<b></b>"], "text 2: the text is empty")]
)
def test_an_empty_text_is_named_by_its_number(cli: Cli, bundle: Bundle, texts: list[str], message: str) -> None:
    failed(cli("predict", "--model", bundle.path, *texts), 1, message)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_any_text_is_printed_in_any_encoding(bundle: Bundle, encoding: str) -> None:
    text = os.fsdecode(b"\xff \xf0\x9f\x8f\x86 goal")  # not UTF-8, as an argument may be
    result = subprocess.run(
        [sys.executable, "-m", "newsbert", "predict", "--model", str(bundle.path), text],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"goal" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--file", "rows.csv"], "--file and --output go together"),
        (["--output", "out.csv", "goal"], "--file and --output go together"),
        (["--url", "http://127.0.0.1:9", "--model", "x", "goal"], "--url and --model exclude each other"),
        (["--file", "rows.csv", "--output", "out.csv", "goal"], "texts and --file exclude each other"),
        (["--file", "rows.csv", "--output", "out.pdf"], "out.pdf"),
        (["--file", "no.csv", "--output", "out.csv", "--model", "BUNDLE"], "no.csv"),
    ],
)
def test_conflicting_arguments_are_a_usage_error(cli: Cli, bundle: Bundle, arguments: list[str], message: str) -> None:
    failed(
        cli("predict", *(str(bundle.path) if argument == "BUNDLE" else argument for argument in arguments)), 2, message
    )


def test_rows_of_a_file_are_classified_into_another_file(cli: Cli, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"id": 1, "text": "goal"}\n{"id": 2, "text": ""}\n', encoding="utf-8")
    result = cli("predict", "--model", bundle.path, "--file", "in.jsonl", "--output", "out.jsonl", "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    rejected = "out.jsonl.rejected.jsonl"
    counts = {"rows": 2, "skipped": 1, "unreadable": 0}
    assert document == {"model": bundle.path.name, **counts, "output": "out.jsonl", "rejected": rejected}
    first, second = map(json.loads, (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines())
    assert first == expected(bundle, ["goal"])[0] | {"id": 1}
    assert second == {"id": 2, "text": "", "label": None, "score": None, "review": None, "probabilities": None}
