"""Files at the checkout's top level that the wheel includes: Dockerfiles, pinned versions and their hashes."""

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

CONSTRAINTS = "constraints.txt"
DOCKER, LOCKS = "docker", "locks"


def find(name: str) -> Traversable:
    """Return a file or directory of the installed package, or of the checkout that it is installed from."""
    installed = resources.files("newsbert") / name
    return installed if installed.is_file() or installed.is_dir() else Path(__file__).parents[3] / name


def files() -> dict[str, bytes]:
    """Return the content of all these files by name, as the wheel includes them."""
    directories = {
        f"{name}/{file.name}": file.read_bytes()
        for name in (DOCKER, LOCKS)
        for file in find(name).iterdir()
        if file.is_file()
    }
    return {CONSTRAINTS: find(CONSTRAINTS).read_bytes(), **directories}
