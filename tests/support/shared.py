"""What is made once for all processes of the suite, as pytest-xdist advises."""

import contextlib
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from filelock import FileLock

Value = TypeVar("Value")


def shared_directory(factory: pytest.TempPathFactory) -> Path:
    """Return the temporary directory of all processes of this run."""
    own = factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@contextlib.contextmanager
def shared(
    factory: pytest.TempPathFactory,
    name: str,
    make: Callable[[Path], Value],
    remove: Callable[[Value], None] = lambda _: None,
) -> Iterator[Value]:
    """Make a value in the first process that needs it; the others wait for it and read it.

    Args:
        factory: pytest's.
        name: The value's name in this run.
        make: Make the value, in an empty directory, which is its argument.
        remove: Remove what belongs to the value, in the last process that leaves the block.
    """
    directory = shared_directory(factory) / f"shared-{name}"
    value_file, users_file = directory / "value.pickle", directory / "users"
    with FileLock(f"{directory}.lock"):
        if not value_file.exists():
            directory.mkdir(exist_ok=True)
            value_file.write_bytes(pickle.dumps(make(Path(tempfile.mkdtemp(dir=directory)))))
        with users_file.open("a") as users:
            users.write(".")
    value: Value = pickle.loads(value_file.read_bytes())
    yield value
    with FileLock(f"{directory}.lock"):
        users_file.write_text(users_file.read_text()[1:])
        if not users_file.read_text():
            value_file.unlink()
            remove(value)
