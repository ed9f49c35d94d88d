"""Pins: versions of the installed packages, and of the packages that newsbert is tested with."""

from collections.abc import Mapping
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from newsbert.core import package_files

SERVING_EXTRA = "serve"


def pinned(*extras: str) -> list[str]:
    """Return sorted lines `name==version` of the installed packages that newsbert with these extras requires.

    newsbert itself is left out. Requirements that are not installed are left out, too: an environment for training need
    not serve.
    """
    # A local version ("2.13.0+cpu") names a build that an index may not have.
    return lines({name: version.partition("+")[0] for name, version in _find_installed(extras).items()})


def pins() -> dict[str, str]:
    """Return the versions of all packages that newsbert is tested with, by name."""
    text = package_files.find(package_files.CONSTRAINTS).read_text(encoding="utf-8")
    entries = (line.partition("==") for line in text.splitlines() if not line.startswith("#"))
    return {canonicalize_name(name): version for name, _, version in entries if version}


def for_bundle() -> list[str]:
    """Return the versions that a bundle records at training: `pinned`, limited to packages that images can have."""
    known = pins()
    return [line for line in pinned(SERVING_EXTRA) if line.partition("==")[0] in known]


def lines(versions: Mapping[str, str]) -> list[str]:
    """Return sorted lines `name==version`."""
    return [f"{name}=={version}" for name, version in sorted(versions.items())]


def versions(*names: str) -> dict[str, str]:
    """Return the versions by name of those packages in `names` that are installed."""
    installed = {}
    for name in names:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def _find_installed(extras: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of the installed packages that newsbert with these extras needs, by name, except its own."""
    installed: dict[str, str] = {}
    pending = [("newsbert", frozenset(extras))]
    seen = set()
    while pending:
        name, requested_extras = pending.pop()
        if (name, requested_extras) in seen:
            continue
        seen.add((name, requested_extras))
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        installed[canonicalize_name(name)] = distribution.version
        for line in distribution.requires or []:
            requirement = Requirement(line)
            contexts = [{"extra": extra} for extra in requested_extras] or [{"extra": ""}]
            if requirement.marker is None or any(requirement.marker.evaluate(context) for context in contexts):
                pending.append((requirement.name, frozenset(requirement.extras)))
    del installed["newsbert"]
    return installed
