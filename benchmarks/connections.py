"""Hold idle and slow connections to `newsbert serve locally --server native`, beside a client that sends requests.

    python benchmarks/connections.py BUNDLE [--idle 10000] [--slow 1000]

A slow connection sends its headers byte by byte. Printed are the latencies of the client and the server's memory, alone
and beside these connections, and the seconds that the server then takes to stop. The clients are one process, on the
same cores as the server.
"""

import argparse
import asyncio
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import psutil

import hostile
from measure import percentile_ms
from newsbert.core.ports import claim_port
from processes import memory_bytes, started, wait_until
from soak import is_ready

_REQUEST = hostile.post(b'{"text": "goal for the team"}')
_SLOW_INTERVAL_S = 0.5
_FILES = 128


async def measure_neighbour(port: int, num_requests: int) -> list[float]:
    """Return the sorted latencies of one client that sends one request after another, in seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    latencies_s = []
    for _ in range(num_requests):
        begin = time.perf_counter()
        writer.write(_REQUEST)
        answer = await hostile.read(reader)
        if answer.status != 200:
            sys.exit(f"the client got {answer.status}")
        latencies_s.append(time.perf_counter() - begin)
    writer.close()
    return sorted(latencies_s)


async def send_slowly(writers: list[asyncio.StreamWriter]) -> None:
    """Send a byte of a header on every connection, again and again."""
    for writer in writers:
        writer.write(b"GET / HTTP/1.1\r\nx: ")
    while True:
        await asyncio.sleep(_SLOW_INTERVAL_S)
        for writer in writers:
            writer.write(b"x")


async def measure(port: int, root: psutil.Process, num_idle: int, num_slow: int, num_requests: int) -> None:
    """Print the table, and stop the server."""

    async def print_row(name: str) -> None:
        latencies_s = await measure_neighbour(port, num_requests)
        p50, p99 = percentile_ms(latencies_s, 50), percentile_ms(latencies_s, 99)
        print(f"| {name} | {p50:.1f} | {p99:.1f} | {memory_bytes(root) / 1e6:.0f} |", flush=True)

    print("| beside | p50 ms of the client | p99 ms | memory MB |\n|---|---|---|---|")
    await print_row("nothing")
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(num_idle)]
    await print_row(f"{num_idle:,} idle connections")
    slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(num_slow)]
    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(send_slowly([writer for _, writer in slow]))
        await print_row(f"these and {num_slow:,} slow ones")
        sending.cancel()
    for reader, _ in connections + slow:
        if reader.at_eof():
            sys.exit("the server has closed a connection")
    begin = time.perf_counter()
    root.terminate()
    await asyncio.to_thread(root.wait, 60)
    print(f"\nStopped after {time.perf_counter() - begin:.1f} s.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--idle", type=int, default=10_000, help="number of idle connections")
    parser.add_argument("--slow", type=int, default=1000, help="number of slow connections")
    parser.add_argument("--requests", type=int, default=1000, help="number of requests of the client, per row")
    arguments = parser.parse_args()
    num_connections = arguments.idle + arguments.slow + _FILES
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < num_connections:
        sys.exit(f"{hard} open files are allowed, not {num_connections}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (num_connections, hard))
    port = claim_port("127.0.0.1", 0)
    command = [
        sys.executable, "-m", "newsbert", "serve", "locally", os.path.realpath(arguments.bundle), "--server", "native",
        "--port", str(port), "--max-connections", str(num_connections), "--header-timeout-s", "600",
    ]  # fmt: skip
    with (
        tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as work,
        started(command, {"NEWSBERT_STATE_DIR": work}, Path(work)) as root,
    ):
        wait_until(lambda: is_ready(port), root, Path(work), 60)
        asyncio.run(measure(port, root, arguments.idle, arguments.slow, arguments.requests))


if __name__ == "__main__":
    main()
