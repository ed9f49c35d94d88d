"""The `requirements.txt` of a bundle: untrusted text, of which only package names and versions are used.

It lists the package versions at training. Images have the versions that newsbert ships, with hashes. They have the
versions of a bundle on request only.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from newsbert.errors import ModelError

FILE = "requirements.txt"
MAX_SIZE_BYTES = 64 * 1024

_PIN = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([A-Za-z0-9.!_-]+)", re.ASCII)
_HINT = "build images of bundles that newsbert train wrote, unaltered: newsbert train"


@dataclass(frozen=True)
class Difference:
    """A package whose version in a bundle differs from the version that newsbert ships."""

    name: str
    bundle: str
    shipped: str


def read(bundle: Path, pins: Mapping[str, str]) -> dict[str, str]:
    """Read the requirements of a bundle as versions by name.

    Args:
        bundle: Directory of the bundle.
        pins: Versions by name of all packages that may be named.

    Raises:
        ModelError: If the file is missing or a line is no such pin; the message names the line.
    """
    file = bundle / FILE
    try:
        # Reading a special file, such as a pipe, may never end.
        if not file.is_file():
            raise ModelError(f"the bundle {bundle} has no {FILE}", "newsbert train")
        with file.open("rb") as stream:
            content = stream.read(MAX_SIZE_BYTES + 1)
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror or error}", "check its rights") from error
    if len(content) > MAX_SIZE_BYTES:
        raise ModelError(f"{file} has more than {MAX_SIZE_BYTES} bytes", _HINT)
    try:
        return parse(content, pins)
    except ValueError as error:
        raise ModelError(f"{file}: {error}", _HINT) from error


def parse(content: bytes, pins: Mapping[str, str]) -> dict[str, str]:
    """Parse lines `name==version` into versions by name; empty lines and comments are allowed.

    Args:
        content: The text.
        pins: Versions by name of all packages that may be named.

    Raises:
        ValueError: If a line is anything else, or names an unknown package or a package twice.
    """
    versions: dict[str, str] = {}
    for number, line in enumerate(content.split(b"\n"), start=1):
        text = line.decode("ascii", "backslashreplace")
        if not text or text.startswith("#"):
            continue
        where = f"line {number}, {text!r:.80},"
        match = _PIN.fullmatch(text)
        try:
            version = Version(match[2]) if match else None
        except InvalidVersion:
            version = None
        # A local version names a build that only some index has.
        if match is None or version is None or version.local:
            raise ValueError(f"{where} is not NAME==VERSION")
        name = canonicalize_name(match[1])
        if name not in pins:
            raise ValueError(f"{where} names a package that newsbert does not ship a version of")
        if name in versions:
            raise ValueError(f"{where} names a package a second time")
        versions[name] = str(version)
    return versions


def differences(versions: Mapping[str, str], pins: Mapping[str, str]) -> tuple[Difference, ...]:
    """Return the packages whose version differs from the shipped version, sorted by name."""
    return tuple(
        Difference(name, version, pins[name])
        for name, version in sorted(versions.items())
        if Version(version) != Version(pins[name])
    )
