"""Compare the time until `newsbert tracking up` has a logged run with that of `mlflow server` with the same stores.

    python benchmarks/tracking_start.py [--runs 3]

The time is from the command in an empty directory until a run with a metric and an artifact is logged. The client
runs already. The stores are SQLite and a directory behind the server, on loopback.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow

from newsbert.core.ports import claim_port
from startup import row


def log_run(url: str) -> None:
    mlflow.set_tracking_uri(url)
    with mlflow.start_run():
        mlflow.log_metric("accuracy", 1.0)
        mlflow.log_text("text", "note.txt")


@contextlib.contextmanager
def run_newsbert(directory: Path, port: int) -> Iterator[None]:
    command = [sys.executable, "-m", "newsbert", "tracking"]
    subprocess.run([*command, "up", "--detach", "--port", str(port)], cwd=directory, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run([*command, "down"], cwd=directory, check=True, capture_output=True)


@contextlib.contextmanager
def run_mlflow(directory: Path, port: int) -> Iterator[None]:
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "files",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                break
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


def until_first_run(server: Callable[[Path, int], contextlib.AbstractContextManager[None]]) -> float:
    """Return the seconds from the command to the end of the first run."""
    port = claim_port("127.0.0.1", 0)
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as name:
        started = time.perf_counter()
        with server(Path(name), port):
            log_run(f"http://127.0.0.1:{port}")
            return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    print("| what | median s | range | runs |\n|---|---|---|---|")
    row("`newsbert tracking up` to a first logged run", lambda: until_first_run(run_newsbert), runs)
    row("the same with `mlflow server` (peer)", lambda: until_first_run(run_mlflow), runs)


if __name__ == "__main__":
    main()
