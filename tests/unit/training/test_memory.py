"""Memory that a step frees, and the next one takes."""

import ctypes
import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, resource
import torch
from newsbert.training.memory import keep_freed_memory

def count_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.zeros(1 << 20) for _ in range(20)]  # 80 MiB
    del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident_pages():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

with keep_freed_memory():
    faults = [count_faults() for _ in range(6)]
    inside = resident_pages()
print(json.dumps({"faults": faults, "returned": inside - resident_pages()}))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_a_step_takes_the_memory_of_the_step_before_it_and_the_end_returns_it() -> None:
    """In a process of its own: malloc's settings are those of a process."""
    output = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    pages = json.loads(output)
    assert pages["faults"][0] > 1_000
    assert pages["faults"][-1] < 100, "after some rounds, the heap has a place for everything"
    assert pages["returned"] > 10_000
