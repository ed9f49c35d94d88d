"""What the images weigh and how long they take: builds, the first answer of a container, its end, memory at rest.

Trains a model from the bundled sample in a temporary directory and builds its images anew, so it needs a container
engine; what `[image]` in a newsbert.toml beside it or NEWSBERT_IMAGE_* say of package indexes is used. Each figure is
printed with the command that it is of. Of times that are repeated the median is printed, with the range.

    python benchmarks/images.py
"""

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

RUNS = 5
REST_S = 10
CLIENTS = 4
TEXT = "Stocks fall as oil rises"


def newsbert(*arguments: str, cwd: Path) -> tuple[str, float]:
    """Run a command; what it printed, and the seconds it took."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "newsbert", *arguments], cwd=cwd, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout, time.perf_counter() - started


@contextlib.contextmanager
def running(image: str) -> Iterator[tuple[str, str]]:
    """A container of an image whose model has answered: its id and its URL."""
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


def until_first_answer(image: str) -> tuple[float, float]:
    """Seconds from typing `docker run` to a first answer, and the megabytes that are in use a while later."""
    started = time.perf_counter()
    with running(image) as (container, _):
        took = time.perf_counter() - started
        time.sleep(REST_S)
        stats = docker.from_env().containers.get(container).stats(stream=False)["memory_stats"]
        return took, (stats["usage"] - stats["stats"].get("total_inactive_file", 0)) / 1e6


def until_stopped(image: str, clients: int) -> float:
    """Seconds that `docker stop` takes while so many clients ask one short text after the other.

    Raises:
        RuntimeError: If the container does not end with exit code 0.
    """
    with running(image) as (container, url):
        asking = [threading.Thread(target=ask_on, args=(url,)) for _ in range(clients)]
        for each in asking:
            each.start()
        time.sleep(1)
        assert all(each.is_alive() for each in asking)
        started = time.perf_counter()
        subprocess.run(["docker", "stop", "-t", "30", container], check=True, capture_output=True)
        took = time.perf_counter() - started
        for each in asking:
            each.join()
        code = subprocess.run(["docker", "wait", container], check=True, capture_output=True, text=True).stdout.strip()
        if code != "0":
            raise RuntimeError(f"the container ended with exit code {code}")
        return took


def ask_on(url: str) -> None:
    """Ask one short text after the other until the server takes no more."""
    client = Client(url)
    with contextlib.suppress(ServingError):
        while True:
            client.predict([TEXT])


def wait_for(url: str) -> None:
    """Wait until a URL is answered with 200."""
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (OSError, urllib.error.HTTPError):
            time.sleep(0.02)


def do_nothing(image: str) -> float:
    """Seconds of a container that does nothing: the limit."""
    started = time.perf_counter()
    subprocess.run(["docker", "run", "--rm", "--entrypoint", "true", image], check=True)
    return time.perf_counter() - started


def spread(values: list[float], unit: str) -> str:
    return f"{statistics.median(values):.1f} {unit} ({min(values):.1f} to {max(values):.1f}, {len(values)} runs)"


def main() -> None:
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        if (here / "newsbert.toml").is_file():
            (work / "newsbert.toml").write_bytes((here / "newsbert.toml").read_bytes())
        newsbert("train", "--epochs", "1", "--model-name", "Bench", cwd=work)
        rows: list[tuple[str, str, str]] = []
        document, cold = newsbert("build-image", "Bench/1", "--rebuild", "--json", cwd=work)
        images = json.loads(document)["images"]
        root = images[0]["layers"][0]["size_bytes"]
        rows.append(("root image", f"{root / 1e6:.0f} MB", "docker pull (here a stand-in)"))
        for name, built in zip(("base", "trainer", "serving, with the model"), images, strict=True):
            rows.append((f"size: {name}", f"{built['size_bytes'] / 1e6:.0f} MB", "newsbert build-image Bench/1"))
        rows.append(("cold build of all three", f"{cold:.0f} s (once)", "newsbert build-image Bench/1 --rebuild"))
        newsbert("register", "--model-name", "Another", cwd=work)
        _, another = newsbert("build-image", "Another/1", "--json", cwd=work)
        rows.append(("another model's image", f"{another:.0f} s (once)", "newsbert build-image Another/1"))
        cached = [newsbert("build-image", "Bench/1", "--json", cwd=work)[1] for _ in range(RUNS)]
        rows.append(("what is there already", spread(cached, "s"), "newsbert build-image Bench/1"))
        tag = images[-1]["tag"]
        answers, memory, limits = [], [], []
        for _ in range(RUNS):
            took, used = until_first_answer(tag)
            answers.append(took)
            memory.append(used)
            limits.append(do_nothing(tag))
        rows.append(("start to first answer", spread(answers, "s"), f"docker run --read-only --tmpfs /tmp {tag}"))
        rows.append(
            ("a container that does nothing (limit)", spread(limits, "s"), f"docker run --entrypoint true {tag}")
        )
        stops = f"docker stop, idle / with short requests of {CLIENTS} clients in flight"
        idle, busy = ([until_stopped(tag, clients) for _ in range(RUNS)] for clients in (0, CLIENTS))
        rows.append((stops, f"{spread(idle, 's')} / {spread(busy, 's')}", "docker stop -t 30"))
        rows.append(("memory at rest, the model in /tmp included", spread(memory, "MB"), "docker stats"))
        document, _ = newsbert("build-image", "Another/1", "--runtime", "torch", "--json", cwd=work)
        full = json.loads(document)["images"][-1]["size_bytes"]
        rows.insert(
            4, ("size: the same with torch", f"{full / 1e6:.0f} MB", "newsbert build-image Another/1 --runtime torch")
        )
    print("| what | measured | command |\n|---|---|---|")
    for what, value, command in rows:
        print(f"| {what} | {value} | `{command}` |")


if __name__ == "__main__":
    main()
