"""Processor cores and features available to this process, and the return of unused memory."""

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
    """Return the number of usable cores: those of the CPU affinity, within the container's limit.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max); cgroup v1 has two files for it.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = read_limit(_CGROUP)
    return max(1, min(bound, math.ceil(limit))) if limit else bound


def return_memory() -> None:
    """Return this process's free memory to the system, if the C library is glibc."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def read_limit(cgroup: Path) -> float | None:
    """Return the CPU limit of a control group in cores, if there is one."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((cgroup / name).read_text() for name in names).split()
            if float(quota) > 0 and float(period) > 0:
                return float(quota) / float(period)
        except (OSError, ValueError):  # no such file; "max" is no limit
            continue
    return None


def multiplies_int8() -> bool:
    """Return whether the CPU has instructions that multiply 8-bit integers without overflow, and a gain from them.

    x86 without VNNI adds pairs of products in 16 bits, which saturate: a quantized graph gives other answers there.
    """
    return platform.machine() in {"x86_64", "AMD64"} and bool(set(_read_cpuinfo("flags").split()) & _VNNI)


def computes_bf16() -> bool:
    """Return whether the CPU has bf16 instructions; training measures whether they are faster."""
    return bool(set(_read_cpuinfo("flags").split()) & _BF16)


def name() -> str:
    """Return the processor's model name."""
    return _read_cpuinfo("model name") or platform.machine()


def _read_cpuinfo(key: str) -> str:
    """Return the first core's entry for a key in Linux's `/proc/cpuinfo`; empty if there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
