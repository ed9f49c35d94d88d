"""Write the lock files: what constraints.txt pins, with the hash of every file that an index lists for it.

    python infra/make_locks.py

`uv` resolves and asks the index for the hashes. Versions come from constraints.txt; for what is not in it (CUDA's
libraries, the tools of infra/) from the lock file that is there. pip takes hashes from requirement files only, never
from constraints. PyTorch's CPU builds are on an index of their own: `--torch-index URL` adds its hashes to the ones
that are there for the same version, `--wheels DIR` those of the wheels in a directory.
"""

import argparse
import hashlib
import re
import subprocess
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

INFRA = Path(__file__).parent
LOCKS = INFRA.parent / "locks"
CONSTRAINTS = INFRA.parent / "constraints.txt"
PYPROJECT = INFRA.parent / "pyproject.toml"
EXCLUDES = INFRA / "cuda.excludes.txt"
COMPILE = (
    *("uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"),
    *("--only-binary", ":all:", "--no-header", "--no-annotate"),
)
BUILD = ("hatchling", "editables")
"""What builds newsbert itself, installed beforehand: a build of its own would take them without hashes."""

TRAINER, TRACKING = ("train", "minilm", "azure", "gs", "s3"), ("tracking",)
GPU = "onnxruntime-gpu[cuda,cudnn]==1.31.1"
"""Of its own version: it appears later than onnxruntime."""

_HEADER = "# Written by `make lock`: do not edit.\n"


def main() -> None:
    """Write all lock files."""
    parser = argparse.ArgumentParser(description="Write the lock files.")
    parser.add_argument("--wheels", type=Path, help="a directory with CPU wheels of torch")
    parser.add_argument("--torch-index", help="an index of CPU builds, such as https://download.pytorch.org/whl/cpu")
    arguments = parser.parse_args()
    lock_torch(arguments.wheels, arguments.torch_index)
    everything = compile_lock("all.txt", extras=("all",), requirements=BUILD)
    compile_lock("dev.txt", extras=("all", "dev"), requirements=BUILD, without=everything)
    compile_lock("trainer.txt", extras=TRAINER, hashes=False)
    compile_lock("tracking.txt", extras=TRACKING, hashes=False)
    compile_lock("cuda.txt", requirements=(pin("torch"),), without=everything, left_out=(), cuda=True)
    compile_lock("gpu.txt", requirements=(GPU,), without=everything, cuda=True)
    lock_tools(INFRA / "requirements.in")
    lock_tools(INFRA / "clients" / "requirements.in")
    lock_tools(INFRA / "mlserver" / "requirements.in")


def compile_lock(
    name: str,
    *,
    extras: tuple[str, ...] = (),
    requirements: tuple[str, ...] = (),
    without: Mapping[str, str] = MappingProxyType({}),
    hashes: bool = True,
    cuda: bool = False,
    left_out: tuple[str, ...] = ("torch",),
) -> dict[str, str]:
    """Write one lock file and return its entries by name.

    Args:
        name: The file's.
        extras: Extras of newsbert that it locks.
        requirements: Other requirements that it locks.
        without: Entries of another lock file, which are left out. Markers may say more here than there.
        hashes: Without them, it is a list of pins alone.
        left_out: Names that are in no case in it.
        cuda: Whether it has torch and CUDA's libraries, of the versions that torch declares.
    """
    file = LOCKS / name
    command = [*COMPILE, "--constraints", str(CONSTRAINTS), "--output-file", str(file)]
    command += ["--generate-hashes"] if hashes else []
    command += ["--constraints", str(LOCKS / "cuda.txt")] if cuda else ["--excludes", str(EXCLUDES)]
    for extra in extras:
        command += ["--extra", extra]
    sources = [str(PYPROJECT)] if extras else []
    if cuda:
        (LOCKS / "cuda.txt").touch()
    subprocess.run([*command, *sources, "-"], input="\n".join(requirements), text=True, check=True)
    blocks = entries(file.read_text(encoding="utf-8"))
    blocks = {key: block for key, block in blocks.items() if without.get(key) != block and key not in left_out}
    file.write_text(_HEADER + "".join(blocks.values()), encoding="utf-8")
    return blocks


def lock_tools(source: Path) -> None:
    """Write the lock file of tools that want other versions than constraints.txt."""
    file = source.with_suffix(".txt")
    subprocess.run([*COMPILE, "--generate-hashes", "--output-file", str(file), str(source)], check=True)
    file.write_text(_HEADER + file.read_text(encoding="utf-8"), encoding="utf-8")


def entries(text: str) -> dict[str, str]:
    """Return the entries of a lock file by name: a pin and the lines with its hashes."""
    blocks = re.findall(r"^[a-z0-9].*\n(?: .*\n)*", text, re.MULTILINE)
    return {block.partition("==")[0]: block for block in blocks}


def pin(name: str) -> str:
    """Return a package's line in constraints.txt."""
    (line,) = re.findall(rf"^{re.escape(name)}==.*$", CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE)
    return str(line)


def lock_torch(wheels: Path | None, index: str | None) -> None:
    """Write torch-cpu.txt: the hashes of torch's CPU builds, those that are there for this version among them."""
    file, line = LOCKS / "torch-cpu.txt", pin("torch")
    before = file.read_text(encoding="utf-8") if file.is_file() else ""
    digests = set(re.findall(r"sha256:([0-9a-f]{64})", before)) if f"\n{line} " in before else set()
    version = line.partition("==")[2]
    if wheels is not None:
        digests |= {
            hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels.glob(f"torch-{version}+cpu-*.whl")
        }
    if index is not None:
        digests |= read_index(index, version)
    hashes = "".join(f" \\\n    --hash=sha256:{digest}" for digest in sorted(digests))
    file.write_text(f"{_HEADER}{line}{hashes}\n", encoding="utf-8")


def read_index(index: str, version: str) -> set[str]:
    """Return the hashes that an index lists for a version of torch, of any CPU build.

    Source: https://packaging.python.org/specifications/simple-repository-api/
    """
    request = urllib.request.Request(f"{index.rstrip('/')}/torch/", headers={"Accept": "text/html"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read().decode().replace("%2B", "+")
    return set(re.findall(rf"torch-{re.escape(version)}(?:\+cpu)?-[^\"/#]*\.whl#sha256=([0-9a-f]{{64}})", text))


if __name__ == "__main__":
    main()
