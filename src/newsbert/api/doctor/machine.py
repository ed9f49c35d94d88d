"""Checks of this machine: Python, packages, processor, memory, disk."""

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

_REQUIRED_EXTRAS = ("train", "serve")
_OPTIONAL_EXTRAS = ("minilm", "image", "deploy", "tracking", "playground", "openvino", "ray")
_GB = 1e9
LEAST_MEMORY, ENOUGH_MEMORY = 1.0 * _GB, 4.0 * _GB
"""Bytes of free memory to serve, and to train: training takes 3 to 3.5 GB, see the README's figures."""
LEAST_DISK, ENOUGH_DISK = 1.0 * _GB, 5.0 * _GB
"""Bytes of free disk space: a bundle takes about 0.2 GB, the build of an image some more."""


def python() -> str:
    """Return Python's version and path.

    Raises:
        NewsbertError: If newsbert does not support the version.
    """
    required = SpecifierSet(metadata.metadata("newsbert")["Requires-Python"] or "")
    if not required.contains(platform.python_version(), prereleases=True):
        raise NewsbertError(f"Python {platform.python_version()}, and newsbert needs {required}", "install a newer one")
    return f"{platform.python_version()}, {sys.executable}"


def packages() -> str:
    """Return newsbert's version and its installed extras.

    Raises:
        NewsbertError: If the requirements of training or serving are incomplete.
    """
    missing_packages = {extra: _find_missing(extra) for extra in (*_REQUIRED_EXTRAS, *_OPTIONAL_EXTRAS)}
    for extra in _REQUIRED_EXTRAS:
        if missing_packages[extra]:
            raise NewsbertError(f"{extra} lacks {', '.join(missing_packages[extra])}", installation.command(extra))
    complete = [extra for extra, missing in missing_packages.items() if not missing]
    incomplete = [extra for extra, missing in missing_packages.items() if missing]
    summary = f"newsbert {metadata.version('newsbert')} with {', '.join(complete)}"
    return summary + (f"; without {', '.join(incomplete)}" if incomplete else "")


def _find_missing(extra: str) -> list[str]:
    """Return the requirements of an extra that are not installed, or not in a supported version."""
    missing: list[str] = []
    for line in metadata.requires("newsbert") or []:
        requirement = Requirement(line)
        if requirement.marker is None or not requirement.marker.evaluate({"extra": extra}):
            continue
        if requirement.name == "newsbert":
            missing += [name for part in sorted(requirement.extras) for name in _find_missing(part)]
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            missing.append(requirement.name)
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            missing.append(f"{requirement.name}{requirement.specifier} (there is {version})")
    return missing


def processor() -> str:
    """Return the processor's cores, its name and the instructions that newsbert uses.

    Raises:
        NoteError: If the processor has no instructions for products of 8-bit integers.
    """
    bf16 = "bf16" if cpu.computes_bf16() else "no bf16"
    description = f"{cpu.cores()} cores, {cpu.name()}: "
    if not cpu.multiplies_int8():
        raise NoteError(f"{description}no 8-bit integers, {bf16}", "nothing: fp32 answers, about half as fast")
    return f"{description}8-bit integers, {bf16}"


def memory() -> str:
    """Return the free memory of the machine, or of the container if that is less.

    Raises:
        NewsbertError: If it is too little to serve.
        NoteError: If it is too little to train, or unknown.
    """
    free = _read_free_memory()
    if free is None:
        raise NoteError("the free memory cannot be read", "look yourself: free -h")
    message = f"{free / _GB:.1f} GB free"
    if free < LEAST_MEMORY:
        raise NewsbertError(message, "end other programs, or raise the container's limit")
    if free < ENOUGH_MEMORY:
        raise NoteError(f"{message}; training takes 3 to 4 GB", "end other programs before you train")
    return message


def _read_free_memory() -> float | None:
    """Return the free memory in bytes, or `None` if the system does not report it."""
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
    """Return the least free space of the directories that newsbert writes to.

    Raises:
        NewsbertError: If a directory is not writable, or has almost no free space.
        NoteError: If there is little free space.
    """
    places = {
        Path.cwd(): "work in another directory",
        environment.cache_dir(): "set NEWSBERT_CACHE_DIR to another directory",
        environment.state_dir(): "set NEWSBERT_STATE_DIR to another directory",
        Path(tempfile.gettempdir()): "set TMPDIR to another directory",
    }
    free = {}
    for place, elsewhere in places.items():
        existing = next(path for path in (place, *place.parents) if path.exists())
        try:
            tempfile.TemporaryFile(dir=existing).close()
        except OSError as error:
            raise NewsbertError(f"{place} cannot be written to: {error.strerror}", elsewhere) from error
        free[place] = shutil.disk_usage(existing).free
        if free[place] < LEAST_DISK:
            raise NewsbertError(f"{free[place] / _GB:.1f} GB free in {place}", f"make room, or {elsewhere}")
    fullest = min(free, key=lambda place: free[place])
    message = f"{free[fullest] / _GB:.1f} GB free in {fullest}"
    if free[fullest] < ENOUGH_DISK:
        raise NoteError(message, f"make room, or {places[fullest]}")
    return message
