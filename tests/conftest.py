"""What all tests have in common: an environment of their own, a tiny encoder, and a bundle trained from it."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import newsbert
from newsbert.bundle.bundle import Bundle
from tests.support import preloaded
from tests.support.cli import Cli
from tests.support.images import engine, image_settings, images
from tests.support.shared import shared
from tests.support.tiny_model import REVIEW_THRESHOLD, WORDS

__all__ = ["engine", "image_settings", "images"]

# A suite that a shell runs in the background has Ctrl+C ignored, and so would all that it starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# PyTorch's threads wait for one another in a loop, which takes the cores from those that they wait for where there are
# more processes than cores: see benchmarks/spinning.py.
os.environ.setdefault("GOMP_SPINCOUNT", "0")


LONGEST = (
    "images", "test_tracking_server.py", "test_ray_training.py", "test_interrupts.py", "test_tracking_backups.py",
    "test_lost_tracking_servers.py", "containers", "test_server.py", "test_faults.py", "test_examples.py",
    "test_deployments.py",
)  # fmt: skip
"""Groups that take minutes: they are begun first, and what is short fills the processes up in the end.

Containers come later: they wait for the images, which take minutes to build."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest groups, then take the others, and single tests at the end."""

    def place(item: pytest.Item) -> int:
        marker = item.get_closest_marker("xdist_group")
        name = marker.args[0] if marker else None
        return LONGEST.index(name) if name in LONGEST else len(LONGEST) + (marker is None)

    items.sort(key=place)


CONTAINERS = (
    "test_agreement.py", "test_containers.py", "test_deploy.py", "test_image_registries.py", "test_pipeline.py",
    "test_targets.py",
)  # fmt: skip
"""What needs the engine and builds little; all tests with a registry are among them, since it has one port."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Build images in one process, run containers in a second, and each file of integration tests in one."""
    if "engine" in getattr(item, "fixturenames", ()) or "e2e" in item.path.parts:
        item.add_marker(pytest.mark.xdist_group("containers" if item.path.name in CONTAINERS else "images"))
    elif "integration" in item.path.parts:
        item.add_marker(pytest.mark.xdist_group(item.path.name))


_SHARED = ("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "NEWSBERT_CACHE_DIR")
"""What the environment has for fixtures of more than one test."""


@pytest.fixture(scope="session", autouse=True)
def _shared_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A cache for what is made once for all tests, instead of the user's; and MLflow's servers start nothing else."""
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    os.environ["NEWSBERT_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A working directory, cache and state of the test's own, and no settings from outside."""
    shared = {name: os.environ[name] for name in _settings_in_environment()}
    for name in shared:
        del os.environ[name]
    monkeypatch.setenv("NEWSBERT_CACHE_DIR", str(tmp_path / ".cache"))
    monkeypatch.setenv("NEWSBERT_STATE_DIR", str(tmp_path / ".state"))
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # three processes, as large as the server
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    yield
    monkeypatch.undo()
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].set_tracking_uri(None)  # the server of this test is not the next one's
    for name in _settings_in_environment():  # MLflow stores its address there, too
        del os.environ[name]
    os.environ.update({name: value for name, value in shared.items() if name in _SHARED})


def _settings_in_environment() -> list[str]:
    ours = ("NEWSBERT_TEST_", "NEWSBERT_REQUIRE_")
    return [name for name in os.environ if name.startswith(("NEWSBERT_", "MLFLOW_")) and not name.startswith(ours)]


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of 2 layers with a vocabulary of letters and the tests' words, in the Hugging Face layout."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    directory = tmp_path_factory.mktemp("tiny-bert")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'\"-"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = sorted({word for words in WORDS.values() for word in words})
    vocabulary = [*special, *letters, *(f"##{letter}" for letter in letters), *words]
    (directory / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,  # wide, so that few steps separate the classes
    )
    BertModel(config).save_pretrained(directory)
    BertTokenizer(vocab=str(directory / "vocab.txt"), model_max_length=64).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def labelled_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 rows of three classes whose names have blanks and accents, as csv with `text` and `label`."""
    file = tmp_path_factory.mktemp("rows") / "rows.csv"
    lines = ["text,label"]
    for number in range(30):
        for label, words in WORDS.items():
            lines.append(f'"{words[number % 4]} {words[(number + 1) % 4]} number {number}",{label}')
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables and nothing in them."""
    import mlflow

    file = tmp_path_factory.mktemp("tables") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{file}").search_experiments(max_results=1)
    return file


@pytest.fixture
def database(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The tracking server of the test: a database that has its tables, which MLflow makes in seconds.

    Its name is new: MLflow keeps a connection by it, and pytest's directories have the same names again.
    """
    uri = f"sqlite:///{shutil.copy(empty_database, tmp_path / f'{uuid.uuid4().hex}.db')}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


@pytest.fixture(scope="session")
def trained(
    tiny_encoder: Path, labelled_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[newsbert.TrainResult, str]]:
    """A training from the tiny encoder, and the tracking URI it was logged to."""

    def train(directory: Path) -> tuple[newsbert.TrainResult, str]:
        uri = f"sqlite:///{directory / 'mlflow.db'}"
        with contextlib.chdir(directory):  # MLflow puts the artifacts of an SQLite server into the working directory
            result = newsbert.train(
                data=str(labelled_file),
                base_model=str(tiny_encoder),
                epochs=25,
                batch_size=8,
                learning_rate=3e-3,
                max_length=48,
                review_threshold=REVIEW_THRESHOLD,
                cascade_loss=100,  # so that few validation rows suffice for a cascade
                output_dir=str(directory / "bundle"),
                tracking_uri=uri,
                model_name="TinyModel",
            )
        return result, uri

    with shared(tmp_path_factory, "trained", train) as (result, uri):
        yield result, uri


@pytest.fixture
def bundle(trained: tuple[newsbert.TrainResult, str]) -> Bundle:
    """The trained bundle; not to be changed."""
    return Bundle.read(trained[0].bundle)


@pytest.fixture(scope="session")
def preloaded_command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """`newsbert`, run by a process that has imported all that it needs: see tests/support/preloaded.py."""
    socket = Path(tempfile.mkdtemp()) / "socket"  # its path is limited
    with (
        (tmp_path_factory.mktemp("preloaded") / "log").open("w+") as log,
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.preloaded", str(socket)],
            cwd=Path(__file__).parents[1], stdin=subprocess.PIPE, stdout=log, stderr=log,
        ) as process,
    ):  # fmt: skip
        while not socket.exists():
            if process.poll() is not None:
                pytest.fail((log.seek(0), log.read())[1])
            time.sleep(0.05)
        os.environ[preloaded.VARIABLE] = str(socket)
        yield [sys.executable, "-S", preloaded.__file__]
        process.kill()
    shutil.rmtree(socket.parent)


@pytest.fixture(scope="session")
def programs(preloaded_command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for PATH that has `newsbert`, run as `cli` runs it."""
    directory = tmp_path_factory.mktemp("programs")
    (directory / "newsbert").write_text(f'#!/bin/sh\nexec {shlex.join(preloaded_command)} "$@"\n')
    (directory / "newsbert").chmod(0o755)
    return directory


@pytest.fixture
def cli(preloaded_command: list[str]) -> Iterator[Cli]:
    """Run `newsbert ARGUMENTS` as a user would, in the test's directory."""

    def run(
        *arguments: object, stdin: str = "", timeout_s: float = 300, **env: str
    ) -> "subprocess.CompletedProcess[str]":
        # What stands before the installed packages must be imported.
        command = [sys.executable, "-m", "newsbert"] if "PYTHONPATH" in env else preloaded_command
        return subprocess.run(
            [*command, *map(str, arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout_s,
            check=False,
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "120", **env},
        )

    yield run
