"""Advisories in the OSV format, compared with the components of an SBOM. Nothing is asked of a network.

osv.dev has an archive of all advisories per ecosystem, such as https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip.

Source: https://ossf.github.io/osv-schema/
"""

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from newsbert.core import zip_files
from newsbert.core.installation import MissingExtraError
from newsbert.errors import NewsbertError

_MAX_BYTES = 256 * 2**20
_HINT = "give a file of osv.dev: one advisory, a list of them, or an ecosystem's all.zip"


@dataclass(frozen=True)
class Package:
    """A component of an SBOM, as advisories name it.

    Attributes:
        ecosystem: Its ecosystem, such as `PyPI` or `Debian:12`.
        name: Its name there: of a Debian package, that of its source.
        version: Its version.
        component: Its name in the SBOM.
    """

    ecosystem: str
    name: str
    version: str
    component: str


@dataclass(frozen=True)
class Finding:
    """A component that an advisory affects.

    Attributes:
        advisory: Id of the advisory.
        aliases: Its other ids.
        component: Name of the component in the SBOM.
        version: Its version.
        fixed: Versions that are not affected any more, if the advisory names them.
        summary: What the advisory is about.
    """

    advisory: str
    aliases: tuple[str, ...]
    component: str
    version: str
    fixed: tuple[str, ...]
    summary: str


def read(file: Path) -> list[dict[str, Any]]:
    """Read the advisories of a file: one, a list of them, `{"vulns": [...]}`, or a ZIP archive of such files.

    Raises:
        NewsbertError: If the file cannot be read, or has another format.
    """
    try:
        if not zipfile.is_zipfile(file):
            with file.open("rb") as stream:
                content = stream.read(_MAX_BYTES + 1)
            if len(content) > _MAX_BYTES:
                raise NewsbertError(f"{file} has more than {_MAX_BYTES} bytes", _HINT)
            return list(_parse(content, str(file)))
        with zipfile.ZipFile(file) as archive:
            return [
                advisory
                for name in archive.namelist()
                if name.endswith(".json")
                for advisory in _parse(zip_files.read_entry(archive, name, _MAX_BYTES), f"{file}, {name}")
            ]
    except (*zip_files.READ_ERRORS, OSError) as error:
        raise NewsbertError(f"the advisories in {file} cannot be read: {error}", _HINT) from error


def find(sbom: Mapping[str, Any], advisories: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Return the components that advisories affect, in the order of the SBOM.

    Raises:
        MissingExtraError: If the package that compares versions is not installed.
    """
    by_package: dict[str, list[Mapping[str, Any]]] = {}
    for advisory in advisories:
        if "withdrawn" not in advisory:
            for name in {_normalize(affected["package"]) for affected in advisory["affected"]}:
                by_package.setdefault(name, []).append(advisory)
    findings = []
    for package in list_packages(sbom):
        key = _normalize({"ecosystem": package.ecosystem, "name": package.name})
        for advisory in by_package.get(key, []):
            matching = [affected for affected in advisory["affected"] if _affects(affected, package)]
            if matching:
                fixed = dict.fromkeys(version for affected in matching for version in _list_fixed(affected))
                aliases = tuple(map(str, advisory.get("aliases", ())))
                summary = str(advisory.get("summary") or advisory.get("details") or "").partition("\n")[0]
                findings.append(
                    Finding(str(advisory["id"]), aliases, package.component, package.version, tuple(fixed), summary)
                )
    return findings


def list_packages(sbom: Mapping[str, Any]) -> Iterator[Package]:
    """Yield the components of an SBOM that have a package URL of a known ecosystem.

    Raises:
        MissingExtraError: If the package that parses them is not installed.
    """
    try:
        from packageurl import PackageURL
    except ImportError as error:
        raise MissingExtraError("packageurl", "image") from error
    components = sbom.get("components")
    for component in components if isinstance(components, list) else ():
        try:
            url = PackageURL.from_string(str(component["purl"]))
            name = str(component["name"])
        except (LookupError, TypeError, ValueError):  # the model, or what another tool has written
            continue
        version, qualifiers = url.version or "", dict(url.qualifiers)
        if url.type == "maven":
            yield Package("Maven", f"{url.namespace}:{url.name}", version, name)
        elif url.type == "pypi":
            yield Package("PyPI", url.name, version, name)
        elif url.type == "deb":
            release = qualifiers.get("distro", "").partition("-")[2]
            source, _, source_version = qualifiers.get("upstream", url.name).partition("@")
            yield Package(f"Debian:{release}", source, source_version or version, name)


def _parse(content: bytes, name: str) -> Iterator[dict[str, Any]]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise NewsbertError(f"{name} is no JSON: {error}", _HINT) from error
    if isinstance(document, dict) and isinstance(document.get("vulns"), list):
        document = document["vulns"]
    for advisory in document if isinstance(document, list) else [document]:
        if not _is_advisory(advisory):
            raise NewsbertError(f"{name} has no advisory in the OSV format", _HINT)
        yield advisory


def _is_advisory(value: Any) -> bool:
    """Return whether a value has the members of an advisory that are read here, of the right types."""
    if not isinstance(value, dict) or not isinstance(value.get("id"), str):
        return False
    value.setdefault("affected", [])
    if not isinstance(value["affected"], list) or not isinstance(value.get("aliases", []), list):
        return False
    value["affected"] = [affected for affected in value["affected"] if _has_package(affected)]
    for affected in value["affected"]:
        versions, ranges = affected.setdefault("versions", []), affected.setdefault("ranges", [])
        if not (isinstance(versions, list) and isinstance(ranges, list) and all(map(_is_range, ranges))):
            return False
    return True


def _has_package(affected: Any) -> bool:
    package = affected.get("package") if isinstance(affected, dict) else None
    return isinstance(package, dict) and all(isinstance(package.get(key), str) for key in ("ecosystem", "name"))


def _is_range(value: Any) -> bool:
    events = value.get("events") if isinstance(value, dict) else None
    return isinstance(events, list) and all(isinstance(event, dict) for event in events)


def _normalize(package: Mapping[str, str]) -> str:
    """Return a key that is the same for every spelling of a package; a Debian release counts."""
    ecosystem, name = package["ecosystem"], package["name"]
    if ecosystem == "PyPI":
        name = canonicalize_name(name)
    return f"{ecosystem}/{name}"


def _affects(affected: Mapping[str, Any], package: Package) -> bool:
    """Return whether an entry of an advisory is about a package, and its version."""
    if _normalize(affected["package"]) != _normalize({"ecosystem": package.ecosystem, "name": package.name}):
        return False
    if package.version in affected["versions"]:
        return True
    return any(
        _is_within(affected_range["events"], package)
        for affected_range in affected["ranges"]
        if affected_range.get("type") in {"ECOSYSTEM", "SEMVER"}
    )


def _is_within(events: Sequence[Mapping[str, Any]], package: Package) -> bool:
    """Return whether a version is in a range: from `introduced` on, before `fixed` or up to `last_affected`."""
    try:
        from univers.versions import DebianVersion, InvalidVersion, MavenVersion, PypiVersion
    except ImportError as error:
        raise MissingExtraError("univers", "image") from error
    parse = {"PyPI": PypiVersion, "Maven": MavenVersion}.get(package.ecosystem, DebianVersion)
    pairs = [(kind, str(text)) for event in events for kind, text in event.items()]
    within = ("introduced", "0") in pairs
    try:
        version = parse(package.version)
        points = [(parse(text), kind) for kind, text in pairs if text != "0"]
    except InvalidVersion:  # cannot be compared: `versions` lists what is affected, then
        return False
    for point, kind in sorted(points, key=lambda pair: pair[0]):
        if kind == "introduced" and version >= point:
            within = True
        elif (kind == "fixed" and version >= point) or (kind == "last_affected" and version > point):
            within = False
    return within


def _list_fixed(affected: Mapping[str, Any]) -> list[str]:
    return [
        str(event["fixed"])
        for affected_range in affected["ranges"]
        for event in affected_range["events"]
        if "fixed" in event and affected_range.get("type") != "GIT"
    ]
