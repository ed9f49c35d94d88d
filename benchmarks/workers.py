"""Measure the memory of both servers with 1, 2 and 4 workers, and the time until they are ready.

    python benchmarks/workers.py BUNDLE [--runs 3]

Memory is the proportional set size of all processes after requests of several clients: pages that processes share
count once.
"""

import argparse
import concurrent.futures
import os
import statistics
import sys
import tempfile
from pathlib import Path

from newsbert.core.ports import claim_port
from newsbert.serving.client import Client
from processes import memory_bytes, started, wait_until
from soak import is_ready

NUM_WORKERS = (1, 2, 4)
_CLIENTS, _REQUESTS = 8, 50
_TEXT = "Stocks fall as oil rises"


def measure(bundle: str, server: str, num_workers: int) -> tuple[float, float]:
    """Return the megabytes of a server's processes, and the seconds until it is ready."""
    port = claim_port("127.0.0.1", 0)
    command = [
        sys.executable, "-m", "newsbert", "serve", "locally", bundle, "--server", server, "--port", str(port),
        "--workers", str(num_workers),
    ]  # fmt: skip
    with (
        tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as work,
        started(command, {"NEWSBERT_STATE_DIR": work}, Path(work)) as root,
    ):
        seconds = wait_until(lambda: is_ready(port), root, Path(work), 120)

        def send_requests() -> None:
            client = Client(f"http://127.0.0.1:{port}")
            for _ in range(_REQUESTS):
                client.predict([_TEXT])

        with concurrent.futures.ThreadPoolExecutor(_CLIENTS) as clients:
            for sent in [clients.submit(send_requests) for _ in range(_CLIENTS)]:
                sent.result()
        return memory_bytes(root) / 1e6, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    print("| server | workers | memory MB | ready after s |\n|---|---|---|---|")
    for num_workers in NUM_WORKERS:
        for server in ("torchserve", "native"):
            runs = [measure(os.path.realpath(arguments.bundle), server, num_workers) for _ in range(arguments.runs)]
            memory, seconds = (statistics.median(values) for values in zip(*runs, strict=True))
            print(f"| {server} | {num_workers} | {memory:.0f} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
