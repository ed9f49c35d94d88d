"""Stops under load, without a proxy: what becomes of the requests that are sent from the signal on.

    python benchmarks/stops.py BUNDLE --stops 5

Clients send short requests to a `newsbert serve locally`, the next one when the last is answered. Then the server
gets SIGTERM. A client that gets a 503 waits a tenth of a second, as `newsbert predict --url` does. It ends when nothing
listens any more. Printed are the answers after the signal; `lost` are requests that were sent after it and got no
answer, and `refused` are connections that were not opened, on which nothing was sent. Requests that were sent before it
and got no answer are printed at the end of the row, if there are any.
"""

import argparse
import asyncio
import collections
import contextlib
import random
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

import hostile
from newsbert.core.ports import claim_port
from processes import started, wait_until
from soak import is_ready

LOAD_S = 2.0
PAUSE_S = 0.1
_TIMEOUT_S = 60
_STOPPING = 503


class Load:
    """Clients of one server, and the answers that they got after the signal.

    Args:
        port: Where it listens.
        keep: Whether a client sends its next request on the same connection.
    """

    def __init__(self, port: int, keep: bool) -> None:
        self.stopping = False
        self.outcomes: collections.Counter[str] = collections.Counter()
        self._port, self._keep = port, keep
        self._request = hostile.post(b'{"text": "stocks market"}')

    async def client(self) -> None:
        """Send requests until nothing listens."""
        reader = writer = None
        while True:
            if writer is None:
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                except OSError:
                    self.outcomes["refused"] += self.stopping
                    return
            assert reader is not None
            sent_before = not self.stopping
            status, stays_open = await self._send(reader, writer)
            kind = "lost, though sent before" if sent_before and not status else str(status or "lost")
            self.outcomes[kind] += self.stopping
            if status != 200 or not (self._keep and stays_open):
                writer.transport.abort()
                writer = None
            if status == _STOPPING:
                await asyncio.sleep(PAUSE_S)

    async def _send(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, bool]:
        """Return the status of the answer, 0 for none, and whether the server keeps the connection."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_TIMEOUT_S):
                writer.write(self._request)
                answer = await hostile.read(reader)
                return answer.status, answer.headers.get("connection", "").lower() != "close"
        return 0, False


async def stop_under_load(port: int, root: psutil.Process, count: int, keep: bool) -> tuple[Load, float]:
    """Stop a server while clients send requests; return what they got, and the seconds that it took to end."""
    load = Load(port, keep)
    clients = [asyncio.create_task(load.client()) for _ in range(count)]
    await asyncio.sleep(LOAD_S + random.random() / 10)
    load.stopping, begin = True, time.monotonic()
    root.send_signal(signal.SIGTERM)
    await asyncio.to_thread(root.wait, _TIMEOUT_S)
    took_s = time.monotonic() - begin
    await asyncio.gather(*clients)
    return load, took_s


def measure(bundle: Path, options: list[str], stops: int, count: int, keep: bool) -> None:
    """Print a row of the table."""
    total: collections.Counter[str] = collections.Counter()
    times = []
    for _ in range(stops):
        with tempfile.TemporaryDirectory() as work:
            port = claim_port("127.0.0.1", 0)
            command = [sys.executable, "-m", "newsbert", "serve", "locally", str(bundle), "--port", str(port), *options]
            with started(command, {"NEWSBERT_STATE_DIR": work}, Path(work)) as root:
                wait_until(lambda at=port: is_ready(at), root, Path(work), 120)  # type: ignore[misc]
                load, took_s = asyncio.run(stop_under_load(port, root, count, keep))
        total += load.outcomes
        times.append(took_s)
    others = {status: number for status, number in total.items() if status not in {"200", "503", "lost", "refused"}}
    figures = [total[kind] for kind in ("200", "503", "lost", "refused")]
    took = f"{statistics.median(times):.1f} s ({min(times):.1f} to {max(times):.1f})"
    kind = "the same connection" if keep else "a new connection"
    print(f"| {kind} | {' | '.join(map(str, figures))} | {took} |{f' others: {others}' if others else ''}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--stops", type=int, default=5)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--options", default="", help="further ones of newsbert serve locally")
    arguments = parser.parse_args()
    print(f"{arguments.stops} stops under {arguments.clients} clients: answers from the signal on\n")
    print("| every request on | 200 | 503 | lost | refused | stopped after |\n|---|---|---|---|---|---|")
    for keep in (False, True):
        measure(arguments.bundle.resolve(), arguments.options.split(), arguments.stops, arguments.clients, keep)


if __name__ == "__main__":
    main()
