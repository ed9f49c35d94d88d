"""Environments of peers, whose pinned packages newsbert does not need."""

import hashlib
import subprocess
import sys
from pathlib import Path

from newsbert.core import environment


def install(requirements: Path, torch_index: str) -> Path:
    """Return the directory of the programs of an environment; create the environment if it is not in the cache.

    Args:
        requirements: File of the packages to install, with the version of torch.
        torch_index: Package index of torch, if not the default of pip.
    """
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:8]
    directory = environment.cache_dir() / "benchmarks" / f"{requirements.stem}-{digest}"
    if not (directory / "installed").is_file():
        print(f"installing {requirements} into {directory} …", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(directory)], check=True)
        pip = [str(directory / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        if torch_index:
            (torch,) = [line for line in requirements.read_text().splitlines() if line.startswith("torch==")]
            subprocess.run([*pip, "--no-deps", "--retries", "1", "--index-url", torch_index, torch], check=True)
        subprocess.run([*pip, "-r", str(requirements)], check=True)
        (directory / "installed").touch()
    return directory / "bin"
