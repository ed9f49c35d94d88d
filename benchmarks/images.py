"""Measure the sizes of the images, and the time for builds, start and stop of a container, and its memory at rest.

    python benchmarks/images.py [--runs 5]
    python benchmarks/images.py --start newsbert-serving:BertModel-2

The script trains a model on the bundled sample in a temporary directory, and builds its images from scratch. It needs a
container engine. It uses the settings of `[image]` of a newsbert.toml in the working directory, and of
NEWSBERT_IMAGE_*. Every figure has the command that it measures. Repeated times have the median and the range.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import docker

from newsbert.core.ports import claim_port
from newsbert.errors import ServingError
from newsbert.serving.client import Client

REST_S = 10
CLIENTS = 4
TEXT = "Stocks fall as oil rises"


def newsbert(*arguments: str, cwd: Path) -> tuple[str, float]:
    """Run a command, and return its output and the seconds."""
    started = time.perf_counter()
    completed = subprocess.run(
        [sys.executable, "-m", "newsbert", *arguments], cwd=cwd, check=True, stdout=subprocess.PIPE, text=True
    )
    return completed.stdout, time.perf_counter() - started


@contextlib.contextmanager
def running(image: str) -> Iterator[tuple[str, str]]:
    """Start a container, wait until its model answers, and yield its id and URL."""
    port = claim_port("127.0.0.1", 0)
    container = subprocess.run(
        ["docker", "run", "--detach", "--read-only", "--tmpfs", "/tmp", "-p", f"127.0.0.1:{port}:8080", image],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{url}/ping")
        Client(url).predict([TEXT])
        yield container, url
    finally:
        subprocess.run(["docker", "rm", "--force", container], check=True, capture_output=True)


def measure_start(image: str, rest_s: float = REST_S) -> tuple[float, float]:
    """Return the seconds from `docker run` to the first answer, and the megabytes in use some seconds later."""
    started = time.perf_counter()
    with running(image) as (container, _):
        duration = time.perf_counter() - started
        time.sleep(rest_s)
        stats = docker.from_env().containers.get(container).stats(stream=False)["memory_stats"]
        return duration, (stats["usage"] - stats["stats"].get("total_inactive_file", 0)) / 1e6


def measure_stop(image: str, clients: int) -> float:
    """Return the seconds of `docker stop` while clients send one short text after another.

    Raises:
        RuntimeError: If the container does not end with exit code 0.
    """
    with running(image) as (container, url):
        threads = [threading.Thread(target=send_requests, args=(url,)) for _ in range(clients)]
        for thread in threads:
            thread.start()
        time.sleep(1)
        assert all(thread.is_alive() for thread in threads)
        started = time.perf_counter()
        subprocess.run(["docker", "stop", "-t", "30", container], check=True, capture_output=True)
        duration = time.perf_counter() - started
        for thread in threads:
            thread.join()
        code = subprocess.run(["docker", "wait", container], check=True, capture_output=True, text=True).stdout.strip()
        if code != "0":
            raise RuntimeError(f"the container ended with exit code {code}")
        return duration


def send_requests(url: str) -> None:
    """Send one short text after another until the server stops."""
    client = Client(url)
    with contextlib.suppress(ServingError):
        while True:
            client.predict([TEXT])


def wait_for(url: str) -> None:
    """Wait until a URL answers with 200."""
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (OSError, urllib.error.HTTPError):
            time.sleep(0.02)


def measure_limit(image: str) -> float:
    """Return the seconds of a container that does nothing."""
    started = time.perf_counter()
    subprocess.run(["docker", "run", "--rm", "--entrypoint", "true", image], check=True)
    return time.perf_counter() - started


def measure_servers(tags: dict[str, str], runs: int) -> list[tuple[str, str, str]]:
    """Return the table's rows about running containers; the images take turns."""
    starts: dict[str, list[tuple[float, float]]] = {server: [] for server in tags}
    stops: dict[str, dict[int, list[float]]] = {server: {0: [], CLIENTS: []} for server in tags}
    limits: list[float] = []
    for _ in range(runs):
        for server, tag in tags.items():
            starts[server].append(measure_start(tag))
            for clients, seconds in stops[server].items():
                seconds.append(measure_stop(tag, clients))
        limits.append(measure_limit(next(iter(tags.values()))))
    rows = [("a container that does nothing (limit)", spread(limits, "s"), "docker run --entrypoint true IMAGE")]
    for server, tag in tags.items():
        answers, memory = map(list, zip(*starts[server], strict=True))
        idle, busy = (spread(seconds, "s") for seconds in stops[server].values())
        start = f"docker run --read-only --tmpfs /tmp {tag}"
        rows += [
            (f"{server}: start to first answer", spread(answers, "s"), start),
            (f"{server}: memory at rest, including the model in /tmp", spread(memory, "MB"), "docker stats"),
            (
                f"{server}: stop, idle / with short requests of {CLIENTS} clients in flight",
                f"{idle} / {busy}",
                "docker stop -t 30",
            ),
        ]
    return rows


def spread(values: list[float], unit: str) -> str:
    return f"{statistics.median(values):.2f} {unit} ({min(values):.2f} to {max(values):.2f}, {len(values)} runs)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--start", metavar="IMAGE", help="measure only how long this image takes to its first answer")
    arguments = parser.parse_args()
    runs = arguments.runs
    if arguments.start:
        limits = [measure_limit(arguments.start) for _ in range(runs)]
        starts = [measure_start(arguments.start, rest_s=0)[0] for _ in range(runs)]
        print("| what | measured |\n|---|---|")
        print(f"| start to first answer | {spread(starts, 's')} |")
        print(f"| a container that does nothing (limit) | {spread(limits, 's')} |")
        return
    settings = Path("newsbert.toml").resolve()
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        if settings.is_file():
            (work / settings.name).write_bytes(settings.read_bytes())
        newsbert("train", "--max-steps", "2", "--model-name", "Bench", cwd=work)
        rows: list[tuple[str, str, str]] = []
        document, cold = newsbert("build-image", "Bench/1", "--rebuild", "--json", cwd=work)
        images = json.loads(document)["images"]
        root = images[0]["layers"][0]["size_bytes"]
        rows.append(("root image", f"{root / 1e6:.0f} MB", "docker pull (here a stand-in)"))
        for name, image in zip(("base", "trainer", "serving, with the model"), images, strict=True):
            rows.append((f"size: {name}", f"{image['size_bytes'] / 1e6:.0f} MB", "newsbert build-image Bench/1"))
        rows.append(("cold build of all three", f"{cold:.0f} s (once)", "newsbert build-image Bench/1 --rebuild"))
        newsbert("register", "--model-name", "Another", cwd=work)
        _, another = newsbert("build-image", "Another/1", "--json", cwd=work)
        rows.append(("image of another model", f"{another:.0f} s (once)", "newsbert build-image Another/1"))
        cached = [newsbert("build-image", "Bench/1", "--json", cwd=work)[1] for _ in range(runs)]
        rows.append(("build when all images exist", spread(cached, "s"), "newsbert build-image Bench/1"))
        native, seconds = newsbert("build-image", "Bench/1", "--server", "native", "--json", cwd=work)
        image = json.loads(native)["images"][-1]
        command = "newsbert build-image Bench/1 --server native"
        rows.append(("size: serving with the native server", f"{image['size_bytes'] / 1e6:.0f} MB", command))
        rows.append(("image of the native server", f"{seconds:.0f} s (once)", command))
        rows += measure_servers({"TorchServe": images[-1]["tag"], "native server": image["tag"]}, runs)
        document, _ = newsbert("build-image", "Another/1", "--runtime", "torch", "--json", cwd=work)
        full = json.loads(document)["images"][-1]["size_bytes"]
        rows.insert(
            4, ("size: the same with torch", f"{full / 1e6:.0f} MB", "newsbert build-image Another/1 --runtime torch")
        )
    print("| what | measured | command |\n|---|---|---|")
    for name, value, command in rows:
        print(f"| {name} | {value} | `{command}` |")


if __name__ == "__main__":
    main()
