"""A TorchServe as users run it, and `mlflow deployments` with what it deploys there: fixtures of tests."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

import pytest
from click.testing import CliRunner
from mlflow.deployments.cli import commands

import newsbert
from newsbert.serving.mlflow_target.target import NewsbertTarget
from newsbert.serving.torchserve import jvm, torch_stub

NAME = "news_classification"
Mlflow = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Running:
    """A TorchServe: its working directory, and the URIs that our target knows it by."""

    home: Path
    target: str
    by_socket: str = ""

    @property
    def store(self) -> Path:
        return self.home / "store"

    def archives(self) -> list[str]:
        return sorted(file.name for file in self.store.iterdir())


def free_ports(count: int) -> list[int]:
    """Return as many ports that are free now."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


@contextlib.contextmanager
def torchserve(home: Path, *, tokens: bool, on_socket: bool = False, with_torch: bool = True) -> Iterator[Running]:
    """A TorchServe with the settings it comes with, but for ports, the model store, and these options."""
    inference, management, metrics, grpc, grpc_management = free_ports(5)
    for name in ("store", "tmp", "lib"):
        (home / name).mkdir()
    if not with_torch:
        (home / "lib" / "torch.py").write_bytes(Path(torch_stub.__file__).read_bytes())
    address = f"unix:{home / 'm.sock'}" if on_socket else f"http://127.0.0.1:{management}"
    (home / "config.properties").write_text(
        f"inference_address=http://127.0.0.1:{inference}\nmanagement_address={address}\n"
        f"metrics_address=http://127.0.0.1:{metrics}\n"
        f"grpc_inference_port={grpc}\ngrpc_management_port={grpc_management}\n"
        f"model_store={home / 'store'}\nenable_model_api=true\ndisable_system_metrics=true\n"
        f"disable_token_authorization={str(not tokens).lower()}\n"
    )
    spec = util.find_spec("ts")
    assert spec is not None
    assert spec.origin is not None
    installed = Path(spec.origin).parent
    paths = [str(home / "lib"), str(Path(newsbert.__file__).parents[1])]
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            [
                jvm.find_java(), f"-Dmodel_server_home={installed.parent}", f"-Djava.io.tmpdir={home / 'tmp'}",
                "-cp", str(installed / "frontend" / "*"), "org.pytorch.serve.ModelServer", "--python", sys.executable,
                "-f", "config.properties", "-s", str(home / "store"), "-ncs",
            ],
            cwd=home, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "TEMP": str(home / "tmp"), "PYTHONPATH": os.pathsep.join(paths)},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{inference}/ping", timeout=2).close()
                break
            except urllib.error.HTTPError as error:  # where tokens are needed, for this too
                error.close()
                break
            except OSError:
                pass
            assert process.poll() is None, (home / "log").read_text()
            assert time.monotonic() < deadline, (home / "log").read_text()
            time.sleep(0.1)
        query = f"?inference_port={inference}"
        yield Running(home, f"newsbert://127.0.0.1:{management}{query}", f"newsbert:{home / 'm.sock'}{query}")
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that needs no token."""
    with torchserve(tmp_path_factory.mktemp("open"), tokens=False) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that needs tokens, as TorchServe does by default."""
    with torchserve(tmp_path_factory.mktemp("guarded"), tokens=True) as running:
        yield running


@pytest.fixture
def mlflow_command(trained: tuple[newsbert.TrainResult, str]) -> Mlflow:
    """Run `mlflow deployments ARGUMENTS` with the registry that holds TinyModel/1."""
    registered = {entry.name for entry in metadata.entry_points(group="mlflow.deployments")}
    assert "newsbert" in registered, "the target is not registered; install newsbert again: pip install -e ."
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])

    def run(*arguments: object, **env: str) -> "subprocess.CompletedProcess[str]":
        # In this process: MLflow takes seconds to be imported. The plugin looks for torch-model-archiver as a shell
        # does: the environment need not be activated here.
        words = list(map(str, arguments))
        done = CliRunner().invoke(commands, words, env={"PATH": path, "MLFLOW_TRACKING_URI": trained[1], **env})
        trace = "" if done.exc_info is None else "".join(traceback.format_exception(*done.exc_info))
        stderr = done.stderr + ("" if isinstance(done.exception, SystemExit | None) else trace)
        return subprocess.CompletedProcess(words, done.exit_code, done.stdout, stderr)

    return run


@pytest.fixture
def client(opened: Running, trained: tuple[newsbert.TrainResult, str]) -> Iterator[NewsbertTarget]:
    """Our target for the open server, which has nothing deployed before and after a test."""
    import mlflow

    mlflow.set_tracking_uri(trained[1])
    target = NewsbertTarget(opened.target)
    yield target
    for deployment in target.list_deployments():
        target.delete_deployment(deployment["name"], {"EXPORT_PATH": opened.store})
    assert opened.archives() == []
