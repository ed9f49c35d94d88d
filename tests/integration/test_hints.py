"""Hints are followed as a user would: the command that an error names is typed, and works."""

import os
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import newsbert
from newsbert.bundle.bundle import Bundle
from tests.support.cli import Cli

TEXT = "Stocks fall as oil rises"


class Desk:
    """Where a user types commands, gets errors, and follows their hints."""

    def __init__(self, cli: Cli, programs: Path, directory: Path, settings: dict[str, str]) -> None:
        self._cli, self._programs, self.settings = cli, programs, settings
        self.directory = directory

    def fail(self, *words: object, stdin: str = "") -> str:
        """Type a command that is refused, and return its hint."""
        done = self._cli(*words, stdin=stdin, **self.settings)
        assert done.returncode in {1, 2}, done.stderr
        assert "Traceback" not in done.stderr
        hints = [line.removeprefix("Hint: ") for line in done.stderr.splitlines() if line.startswith("Hint: ")]
        assert hints, done.stderr
        return "\n".join(hints)

    def follow(self, hint: str, command: str) -> str:
        """Type the command that a hint names, in a shell, and return what it prints."""
        assert command in hint
        path = f"{self._programs}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-ec", command], env={**os.environ, "PATH": path, **self.settings}, cwd=self.directory,
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, *words: object) -> str:
        """Type a command that works."""
        done = self._cli(*words, **self.settings)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def desk(cli: Cli, programs: Path, tmp_path: Path, tiny_encoder: Path) -> Desk:
    """A desk at which training takes seconds."""
    training = {"BASE_MODEL": str(tiny_encoder), "MAX_STEPS": "2", "MAX_TRAIN_SAMPLES": "64", "MAX_LENGTH": "48"}
    return Desk(cli, programs, tmp_path, {f"NEWSBERT_TRAIN_{name}": value for name, value in training.items()})


@pytest.fixture
def lab(cli: Cli, programs: Path, tmp_path: Path, trained: tuple[newsbert.TrainResult, str]) -> Desk:
    """A desk with TinyModel/1 in its registry."""
    return Desk(cli, programs, tmp_path, {"MLFLOW_TRACKING_URI": trained[1]})


def test_from_nothing_to_an_alias(desk: Desk) -> None:
    hint = desk.fail("predict", TEXT)
    desk.follow(hint, "newsbert train")
    hint = desk.fail("register")
    desk.follow(hint, "newsbert register --model-name BertModel")
    hint = desk.fail("predict", "--model", "BertModel@champion", TEXT)
    desk.follow(hint, "newsbert register --model-name BertModel --alias champion")
    assert desk.run("predict", "--model", "BertModel@champion", TEXT)
    hint = desk.fail("register", "123456", "--model-name", "BertModel")
    desk.follow(hint, "newsbert runs")


def test_columns_of_other_names(desk: Desk, labelled_file: Path) -> None:
    lines = labelled_file.read_text(encoding="utf-8").splitlines()
    (desk.directory / "my news.csv").write_text("\n".join(["words,desk", *lines[1:]]), encoding="utf-8")
    hint = desk.fail("train", "--data", "my news.csv")
    desk.follow(hint, "newsbert init 'my news.csv'")
    desk.run("train")
    hint = desk.fail("init", "my news.csv")
    assert "the same command with --force" in hint
    desk.run("init", "my news.csv", "--force")


def test_options_of_predict(lab: Desk) -> None:
    (lab.directory / "in.csv").write_text(f"text\n{TEXT}\n")
    for stdin in ("", " \n"):
        lab.follow(lab.fail("predict", stdin=stdin), f'newsbert predict "{TEXT}"')
    lab.follow(lab.fail("predict", "--file", "in.csv"), "newsbert predict --file in.csv --output out.csv")
    hint = lab.fail("predict", "--restart", TEXT)
    lab.follow(hint, "newsbert predict --file in.csv --output out.csv --restart")
    hint = lab.fail("predict", "--file", "in.csv", "--output", "not there/out.csv")
    lab.follow(hint, "mkdir -p 'not there'")
    lab.run("predict", "--file", "in.csv", "--output", "not there/out.csv")
    lab.follow(lab.fail("predict", TEXT, "--ray-workers", "2"), "newsbert predict --help")


def test_standard_input_of_another_encoding(lab: Desk) -> None:
    (lab.directory / "FILE").write_bytes("Économie\n".encode("cp1252"))
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    with (lab.directory / "FILE").open("rb") as stdin:
        done = subprocess.run(
            ["newsbert", "predict"],
            stdin=stdin,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert "Économie" in lab.follow(done.stderr, "iconv -f windows-1252 -t utf-8 FILE | newsbert predict")


def test_an_unknown_label(lab: Desk, bundle: Bundle) -> None:
    hint = lab.fail("explain", "--label", "Weather", TEXT)
    assert "newsbert explain --label LABEL" in hint
    label = shlex.quote(bundle.contract.labels[0])
    lab.follow(hint.replace("LABEL", label), f'newsbert explain --label {label} "{TEXT}"')


@pytest.mark.parametrize("packer", ["zip", "tar"])
def test_rows_that_are_packed(desk: Desk, labelled_file: Path, packer: str) -> None:
    inside = desk.directory / "inside"
    inside.mkdir()
    for name in ("news.csv", "more.csv"):
        shutil.copy(labelled_file, inside / name)
    if packer == "zip" and shutil.which("unzip") is None:
        pytest.skip("needs unzip")
    packed = shutil.make_archive(str(desk.directory / "my rows"), packer, inside)
    name = "my rows.csv"
    Path(packed).rename(desk.directory / name)
    hint = desk.fail("init", name)
    desk.follow(hint, f"unzip '{name}'" if packer == "zip" else f"tar -xf '{name}'")
    desk.run("init", "news.csv")


@pytest.fixture
def served(lab: Desk) -> Iterator[Callable[[str, str], str]]:
    """Follow hints that start a server in the background, on any port; it is stopped after the test."""
    lab.settings |= {"NEWSBERT_SERVE_PORT": "0"}
    yield lab.follow
    lab.run("serve", "stop", "--all")


def test_servers_of_this_machine(lab: Desk, served: Callable[[str, str], str]) -> None:
    served(lab.fail("serve", "stop"), "newsbert serve locally --detach")
    assert "newsbert serve token --key-file FILE" in lab.fail("serve", "token")
