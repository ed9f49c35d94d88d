"""Netty's native library, which unix sockets need, in a directory that allows execution.

By default netty unpacks it into the temporary directory. That fails if the directory is mounted `noexec`, as Docker's
tmpfs is.
"""

import contextlib
import os
import platform
import sys
import zipfile
from pathlib import Path

from newsbert.core import environment, files, private_files
from newsbert.errors import ServingError

_JAR = "model-server.jar"


def directory(frontend: Path, work: Path) -> Path:
    """Return a directory that holds the library and allows execution.

    Args:
        frontend: TorchServe's directory of jars; in an image, its subdirectory `native` holds the library.
        work: The server's directory.

    Raises:
        ServingError: If there is no such directory.
    """
    name = _make_library_name()
    if (frontend / "native" / name).is_file():
        return frontend / "native"
    for candidate in (work / "native", environment.cache_dir() / "native"):
        with contextlib.suppress(OSError):
            candidate.parent.mkdir(parents=True, exist_ok=True)
            private_files.make_directory(candidate)
            if not os.statvfs(candidate).f_flag & os.ST_NOEXEC:
                unpack(frontend, candidate)
                return candidate
    raise ServingError(
        f"TorchServe needs a directory from which programs may be run, and {work} and "
        f"{environment.cache_dir()} are none",
        "docker run --tmpfs /tmp:exec, or set NEWSBERT_CACHE_DIR to one",
    )


def unpack(frontend: Path, target: Path) -> None:
    """Unpack the library of this machine's architecture.

    Raises:
        ServingError: If TorchServe has no library for it.
        OSError: If it cannot be written.
    """
    name = _make_library_name()
    try:
        with zipfile.ZipFile(frontend / _JAR) as jar:
            library = jar.read(f"META-INF/native/{name}")
    except KeyError as error:
        raise ServingError(f"TorchServe does not run on {platform.machine()}", "use an x86_64 machine") from error
    files.write_atomically(target / name, library)


def _make_library_name() -> str:
    machine = {"aarch64": "aarch_64", "arm64": "aarch_64"}.get(platform.machine(), platform.machine())
    return f"libnetty_transport_native_epoll_{machine}.so"


if __name__ == "__main__":  # in an image's build: python -m newsbert.serving.torchserve.netty .../ts/frontend DIRECTORY
    Path(sys.argv[2]).mkdir()
    unpack(Path(sys.argv[1]), Path(sys.argv[2]))
