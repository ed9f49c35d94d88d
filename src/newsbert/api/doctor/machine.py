"""What this machine has: Python, packages, processor, memory, disk."""

import platform
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from newsbert.api.doctor.checks import NoteError
from newsbert.core import cpu, environment, installation
from newsbert.errors import NewsbertError

_NEEDED = ("train", "serve")
_BESIDES = ("minilm", "image", "deploy", "tracking", "playground", "openvino", "ray")
_GB = 1e9
LEAST_MEMORY, ENOUGH_MEMORY = 1.0 * _GB, 4.0 * _GB
"""With less nothing can be served; training takes 3 to 3.5 GB, see the README's figures."""
LEAST_DISK, ENOUGH_DISK = 1.0 * _GB, 5.0 * _GB
"""A bundle has about 0.2 GB, an image's build some more."""


def python() -> str:
    """Its version and place.

    Raises:
        NewsbertError: If it is older than newsbert takes.
    """
    wanted = SpecifierSet(metadata.metadata("newsbert")["Requires-Python"] or "")
    if not wanted.contains(platform.python_version(), prereleases=True):
        raise NewsbertError(f"Python {platform.python_version()}, and {wanted} is wanted", "install a newer one")
    return f"{platform.python_version()}, {sys.executable}"


def packages() -> str:
    """The parts of newsbert that are installed.

    Raises:
        NewsbertError: If what trains or serves is not whole.
    """
    lacking = {extra: _lacking(extra) for extra in (*_NEEDED, *_BESIDES)}
    for extra in _NEEDED:
        if lacking[extra]:
            raise NewsbertError(f"{extra} lacks {', '.join(lacking[extra])}", installation.command(extra))
    there = [extra for extra, missing in lacking.items() if not missing]
    without = [extra for extra, missing in lacking.items() if missing]
    said = f"newsbert {metadata.version('newsbert')} with {', '.join(there)}"
    return said + (f"; without {', '.join(without)}" if without else "")


def _lacking(extra: str) -> list[str]:
    """What an extra declares and is not installed, or in a version that it does not take."""
    found: list[str] = []
    for line in metadata.requires("newsbert") or []:
        wanted = Requirement(line)
        if wanted.marker is None or not wanted.marker.evaluate({"extra": extra}):
            continue
        if wanted.name == "newsbert":
            found += [name for part in sorted(wanted.extras) for name in _lacking(part)]
            continue
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            found.append(wanted.name)
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            found.append(f"{wanted.name}{wanted.specifier} (there is {version})")
    return found


def processor() -> str:
    """Its cores, and what of its instructions is made use of.

    Raises:
        NoteError: If it cannot multiply 8-bit integers.
    """
    bf16 = "bf16" if cpu.computes_bf16() else "no bf16"
    said = f"{cpu.cores()} cores, {cpu.name()}: "
    if not cpu.multiplies_int8():
        raise NoteError(f"{said}no 8-bit integers, {bf16}", "nothing: fp32 answers, about half as fast")
    return f"{said}8-bit integers, {bf16}"


def memory() -> str:
    """How much of it is free, of the machine's and of a container's.

    Raises:
        NewsbertError: If it is not enough to serve.
        NoteError: If it is not enough to train, or cannot be found out.
    """
    free = _free_memory()
    if free is None:
        raise NoteError("it cannot be found out how much is free", "look yourself: free -h")
    said = f"{free / _GB:.1f} GB free"
    if free < LEAST_MEMORY:
        raise NewsbertError(said, "end other programs, or raise the container's limit")
    if free < ENOUGH_MEMORY:
        raise NoteError(f"{said}; training takes 3 to 4 GB", "end other programs before you train")
    return said


def _free_memory() -> float | None:
    """Bytes, or nothing where Linux does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    table = {name: float(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    free = table["MemAvailable"]
    try:  # cgroup v2, as in a container
        limit, used = (float(Path("/sys/fs/cgroup", name).read_text()) for name in ("memory.max", "memory.current"))
        free = min(free, limit - used)
    except (OSError, ValueError):  # no such file; "max" is no limit
        pass
    return free


def disk() -> str:
    """How much is free where newsbert writes.

    Raises:
        NewsbertError: If it cannot write somewhere, or has hardly any room.
        NoteError: If there is little room.
    """
    places = {
        Path.cwd(): "work in another directory",
        environment.cache_dir(): "set NEWSBERT_CACHE_DIR to another directory",
        environment.state_dir(): "set NEWSBERT_STATE_DIR to another directory",
        Path(tempfile.gettempdir()): "set TMPDIR to another directory",
    }
    free = {}
    for place, elsewhere in places.items():
        there = next(each for each in (place, *place.parents) if each.exists())
        try:
            tempfile.TemporaryFile(dir=there).close()
        except OSError as error:
            raise NewsbertError(f"{place} cannot be written to: {error.strerror}", elsewhere) from error
        free[place] = shutil.disk_usage(there).free
        if free[place] < LEAST_DISK:
            raise NewsbertError(f"{free[place] / _GB:.1f} GB free in {place}", f"make room, or {elsewhere}")
    least = min(free, key=lambda place: free[place])
    said = f"{free[least] / _GB:.1f} GB free in {least}"
    if free[least] < ENOUGH_DISK:
        raise NoteError(said, f"make room, or {places[least]}")
    return said
