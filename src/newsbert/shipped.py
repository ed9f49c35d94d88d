"""Files of the checkout's top level that the wheel carries too: the Dockerfiles and the pins."""

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

CONSTRAINTS = "constraints.txt"
DOCKER = "docker"


def find(name: str) -> Traversable:
    """A file or directory, in the installed package or at the top of the checkout that it is installed from."""
    installed = resources.files("newsbert") / name
    return installed if installed.is_file() or installed.is_dir() else Path(__file__).parents[2] / name


def files() -> dict[str, bytes]:
    """All of them, by name, as the wheel carries them."""
    docker = {f"{DOCKER}/{file.name}": file.read_bytes() for file in find(DOCKER).iterdir() if file.is_file()}
    return {CONSTRAINTS: find(CONSTRAINTS).read_bytes(), **docker}
