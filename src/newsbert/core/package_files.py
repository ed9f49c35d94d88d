"""Files of the checkout's top level that the wheel carries too: the Dockerfiles, the pins and their hashes."""

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

CONSTRAINTS = "constraints.txt"
DOCKER, LOCKS = "docker", "locks"


def find(name: str) -> Traversable:
    """A file or directory, in the installed package or at the top of the checkout that it is installed from."""
    installed = resources.files("newsbert") / name
    return installed if installed.is_file() or installed.is_dir() else Path(__file__).parents[3] / name


def files() -> dict[str, bytes]:
    """All of them, by name, as the wheel carries them."""
    directories = {
        f"{name}/{file.name}": file.read_bytes()
        for name in (DOCKER, LOCKS)
        for file in find(name).iterdir()
        if file.is_file()
    }
    return {CONSTRAINTS: find(CONSTRAINTS).read_bytes(), **directories}
