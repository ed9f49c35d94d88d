"""What tests of commands have in common."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

long = pytest.mark.skipif(not os.environ.get("NEWSBERT_TEST_LONG"), reason="takes minutes: NEWSBERT_TEST_LONG=1")


def wait_for_checkpoint(directory: Path, process: "subprocess.Popen[str]", trainings: int = 1) -> None:
    """Wait until that many trainings in a directory have a checkpoint, the process's among them."""
    while len({path.parent for path in directory.glob("bundles/.*/checkpoints/checkpoint-*")}) < trainings:
        if process.poll() is not None:
            pytest.fail(f"it ended before: {process.communicate()}")
        time.sleep(0.01)


Cli = Callable[..., "subprocess.CompletedProcess[str]"]
