"""Pins: versions of the packages that are installed here, and of those that newsbert is tested with."""

from collections.abc import Mapping
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from newsbert.core import package_files

SERVING_EXTRA = "serve"


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
