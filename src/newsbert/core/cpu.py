"""Count the cores that this process may use, and return memory that it does not."""

import contextlib
import ctypes
import math
import os
import platform
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_VNNI = {"avx512_vnni", "avx_vnni", "amx_int8"}
_BF16 = {"avx512_bf16", "amx_bf16"}


def cores() -> int:
    """How many cores may be busy at once: those that it is bound to, and what a container's limit leaves of them.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max); cgroup v1 has two files for it.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = _limit(_CGROUP)
    return max(1, min(bound, math.ceil(limit))) if limit else bound


def return_memory() -> None:
    """Give the memory that is free in this process back to the system, where the C library is GNU's."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _limit(cgroup: Path) -> float | None:
    """The limit of the control group at `cgroup` in cores, if there is one."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((cgroup / name).read_text() for name in names).split()
            if float(quota) > 0 and float(period) > 0:
                return float(quota) / float(period)
        except (OSError, ValueError):  # no such file; "max" is no limit
            continue
    return None


def multiplies_int8() -> bool:
    """Whether there are instructions that multiply 8-bit integers without overflow, and with them a gain.

    x86 without VNNI adds pairs of products in 16 bits, which saturate: a quantized graph would answer otherwise there.
    """
    return platform.machine() in {"x86_64", "AMD64"} and bool(set(_told("flags").split()) & _VNNI)


def computes_bf16() -> bool:
    """Whether there are instructions that compute in bf16; whether that is faster is for training to find out."""
    return bool(set(_told("flags").split()) & _BF16)


def name() -> str:
    """What the processor calls itself."""
    return _told("model name") or platform.machine()


def _told(key: str) -> str:
    """What Linux says of the first core; nothing where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
