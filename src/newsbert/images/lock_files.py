"""The lock files that newsbert ships: pinned packages with the hash of every file of that version.

`make lock` writes them, from constraints.txt. pip takes hashes from requirement files only, not from constraints.
"""

import re
from collections.abc import Collection

from newsbert.core import package_files

LOCKED, TORCH_CPU, TORCH_CUDA = ("all.txt", "dev.txt"), "torch-cpu.txt", "cuda.txt"
TRAINER, TRACKING, GPU = "trainer.txt", "tracking.txt", "gpu.txt"

_ENTRY = re.compile(r"^[a-z0-9].*\n(?: .*\n)*", re.MULTILINE)


def names(file: str) -> frozenset[str]:
    """Return the names of the packages in a lock file."""
    return frozenset(_read_entries(file))


def lines(packages: Collection[str], *files: str) -> list[str]:
    """Return the entries of packages, with their hashes, sorted by name.

    Args:
        packages: Names of the packages.
        files: Names of the lock files; default: those of newsbert's own requirements.

    Raises:
        LookupError: If a package has no entry.
    """
    entries = {name: entry for file in files or LOCKED for name, entry in _read_entries(file).items()}
    return [entries[name] for name in sorted(packages)]


def _read_entries(file: str) -> dict[str, str]:
    text = (package_files.find(package_files.LOCKS) / file).read_text(encoding="utf-8")
    return {entry.partition("==")[0]: entry.rstrip("\n") for entry in _ENTRY.findall(text)}
