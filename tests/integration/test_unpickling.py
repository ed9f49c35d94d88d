"""Pickles in a bundle: to load one is to run its author's program. No command does."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from newsbert.bundle.bundle import Bundle, sha256_of
from newsbert.bundle.contract import CONTRACT_FILE
from newsbert.errors import NewsbertError
from tests.support.cli import Cli

PLACES = ("model.pth", "model.pt", "pytorch_model.bin", "training_args.bin", "tokenizer.pkl")


class _Planting:
    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self._file, "unpickled")


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """The file that appears when a pickle of the tests is loaded."""
    return tmp_path / "planted"


@pytest.fixture
def evil(bundle: Bundle, tmp_path: Path, planted: Path) -> Path:
    """A bundle whose contract vouches for its pickles, as its author would have it."""
    directory = Path(shutil.copytree(bundle.path, tmp_path / "evil"))
    contract = json.loads((directory / CONTRACT_FILE).read_text(encoding="utf-8"))
    for name in PLACES:
        (directory / name).write_bytes(pickle.dumps(_Planting(planted)))
        contract["files"][name] = sha256_of(directory / name)
    (directory / CONTRACT_FILE).write_text(json.dumps(contract), encoding="utf-8")
    return directory


def test_the_pickles_are_live(evil: Path, planted: Path) -> None:
    pickle.loads((evil / "model.pth").read_bytes())
    assert planted.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "--model", "evil", "goal"),
        ("export", "archive", "evil", "--output-dir", "store"),
        ("export", "archive", "evil", "--output-dir", "store", "--runtime", "torch"),
        ("build-image", "evil", "--dry-run"),
        ("build-image", "evil", "--dry-run", "--runtime", "torch"),
        ("train", "--base-model", "evil", "--epochs", "1", "--max-train-samples", "8", "--max-length", "48"),
    ],
    ids=" ".join,
)
def test_no_command_unpickles(cli: Cli, evil: Path, planted: Path, arguments: tuple[str, ...]) -> None:
    done = cli(*arguments)
    assert done.returncode == 0, done.stderr
    assert not planted.exists()


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_no_runtime_unpickles(evil: Path, planted: Path, runtime: str) -> None:
    import newsbert

    assert newsbert.load(evil, runtime=runtime).predict(["goal"])
    # Where there are no other weights, transformers would take these.
    (evil / "model.safetensors").unlink()
    (evil / "model.onnx").unlink()
    with pytest.raises(NewsbertError):
        newsbert.load(evil, runtime=runtime)
    assert not planted.exists()


def test_an_archive_of_it_is_served_without_them(cli: Cli, evil: Path, planted: Path) -> None:
    for runtime in ("onnxruntime", "torch"):
        made = cli("export", "archive", "evil", "--output-dir", runtime, "--runtime", runtime, "--json")
        file = json.loads(made.stdout)["archive"]
        assert cli("serve", "locally", file, "--port", "0", "--timeout-s", "90", "--detach").returncode == 0
    assert cli("serve", "stop", "--all").returncode == 0
    assert not planted.exists()


def test_a_run_with_them_is_not_unpickled_when_it_is_registered(cli: Cli, evil: Path, planted: Path) -> None:
    """Anybody who can write to the artifacts could put them into a run."""
    trained = cli("train", "--base-model", evil, "--epochs", 1, "--max-train-samples", 8, "--max-length", 48)
    assert trained.returncode == 0, trained.stderr
    contracts = list(Path("mlruns").rglob(CONTRACT_FILE))
    assert contracts
    for contract in contracts:
        for name in PLACES:
            shutil.copy(evil / name, contract.with_name(name))
    for arguments in (("register", "--model-name", "Evil"), ("predict", "--model", "Evil", "goal")):
        cli(*arguments)
    assert not planted.exists()
