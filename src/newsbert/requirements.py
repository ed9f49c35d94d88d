"""The pinned requirements of this environment: what a bundle's `requirements.txt` and the images are made from."""

from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SERVING_EXTRA = "serve"


def pinned(*extras: str) -> list[str]:
    """Return `name==version` of everything that newsbert with these extras needs, itself left out, sorted.

    Requirements of an extra that are not installed here are left out as well: who trains need not serve.
    """
    versions: dict[str, str] = {}
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
        versions[canonicalize_name(name)] = distribution.version
        for line in distribution.requires or []:
            requirement = Requirement(line)
            contexts = [{"extra": extra} for extra in wanted] or [{"extra": ""}]
            if requirement.marker is None or any(requirement.marker.evaluate(context) for context in contexts):
                pending.append((requirement.name, frozenset(requirement.extras)))
    del versions["newsbert"]
    # A local version ("2.13.0+cpu") names a build that an index may not have.
    return [f"{name}=={version.partition('+')[0]}" for name, version in sorted(versions.items())]


def versions(*names: str) -> dict[str, str]:
    """Return the installed versions of `names`, without those that are not installed."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
