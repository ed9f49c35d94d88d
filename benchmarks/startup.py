"""Measure the start of the command line, and the time from `serve locally` to the first answer.

    python benchmarks/startup.py [--runs 10] [--serve-runs 5]

The script trains a model on the bundled sample in a temporary directory first. It prints medians, next to those of a
peer or of a limit.
"""

import argparse
import functools
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from newsbert.bundle.bundle import Bundle
from newsbert.core.ports import claim_port
from newsbert.core.settings import ServeSettings
from newsbert.serving import archive, protocol, runtime_dir
from newsbert.serving.client import Client
from newsbert.serving.torchserve import supervisor


def seconds(command: list[str], cwd: Path | None = None) -> float:
    started = time.perf_counter()
    subprocess.run(command, cwd=cwd, check=True, capture_output=True)
    return time.perf_counter() - started


def until_first_answer(reference: str, cwd: Path, server: str = "torchserve") -> float:
    """Return the seconds from the start of `newsbert serve locally` to the answer of the first request."""
    port = claim_port("127.0.0.1", 0)
    started = time.perf_counter()
    command = [sys.executable, "-m", "newsbert", "serve", "locally", reference, "--port", str(port), "--server", server]
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # printed when it is ready
    Client(f"http://127.0.0.1:{port}").predict(["Stocks fall as oil rises"])
    duration = time.perf_counter() - started
    process.send_signal(signal.SIGINT)
    process.communicate()
    return duration


def bare_torchserve(store: Path) -> float:
    """Return the seconds until TorchServe is ready with a handler that does nothing: the limit."""
    shutil.rmtree(store, ignore_errors=True)
    store.mkdir()
    handler = store / "nothing.py"
    answer = json.dumps({"label": "x", "probabilities": {"x": 1}})
    handler.write_text(f"def handle(data, context):\n    return None if data is None else [{answer!r}] * len(data)\n")
    config = store / "model-config.yaml"
    config.write_text(json.dumps({"newsbert": {"model": "nothing", "runtime": "onnxruntime", "workers": 1}}))
    subprocess.run(
        ["torch-model-archiver", "--model-name", protocol.SERVED_NAME, "--version", "1", "--handler", str(handler),
         "--config-file", str(config), "--export-path", str(store)],
        check=True, capture_output=True,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )  # fmt: skip
    started = time.perf_counter()
    settings = ServeSettings(port=0)
    with (
        runtime_dir.make(None) as work,
        supervisor.serving(store / archive.ARCHIVE_NAME, settings, work, lambda line: None) as server,
    ):
        assert server.wait_ready(60, threading.Event())
        return time.perf_counter() - started


def row(name: str, measure: Callable[[], float], runs: int) -> float:
    values = [measure() for _ in range(runs)]
    median = statistics.median(values)
    print(f"| {name} | {median:.2f} | {min(values):.2f} to {max(values):.2f} | {runs} |", flush=True)
    return median


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--serve-runs", type=int, default=5)
    arguments = parser.parse_args()
    runs, serve_runs = arguments.runs, arguments.serve_runs
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # with compiled modules, as an installed package has them
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as name:
        directory = Path(name)
        newsbert = [sys.executable, "-m", "newsbert"]
        trained = json.loads(
            subprocess.run(
                [*newsbert, "train", "--max-steps", "2", "--model-name", "BertModel", "--json"],
                cwd=directory, check=True, capture_output=True, text=True,
            ).stdout
        )  # fmt: skip
        bundle = Bundle.read(directory / trained["bundle"])
        for server in ("torchserve", "native"):
            until_first_answer(str(bundle.path), directory, server)  # compiles them
        print("| what | median s | range | runs |\n|---|---|---|---|")
        row("`newsbert --help`", lambda: seconds([*newsbert, "--help"]), runs)
        row("`mlflow --help` (peer)", lambda: seconds([sys.executable, "-m", "mlflow", "--help"]), runs)
        row("`python -c 'import typer'` (limit)", lambda: seconds([sys.executable, "-c", "import typer"]), runs)
        for reference, shown in (("BertModel/1", "BertModel/1"), (str(bundle.path), "BUNDLE")):
            for server in ("torchserve", "native"):
                row(
                    f"`serve locally {shown} --server {server}` to first answer",
                    functools.partial(until_first_answer, reference, directory, server),
                    serve_runs,
                )
        row("TorchServe with an empty handler (limit)", lambda: bare_torchserve(directory / "store"), serve_runs)


if __name__ == "__main__":
    main()
