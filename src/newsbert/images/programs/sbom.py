"""Write the CycloneDX SBOM of the image that this program runs in.

Run as `python -m newsbert.images.programs.sbom MODEL OUTPUT`.

The SBOM lists the model, every installed Python package, the libraries inside TorchServe's jar, and the system's
packages. The same image gives the same SBOM. CycloneDX's own library writes it.

Source: https://cyclonedx.org/specification/overview/
"""

import argparse
import email
import json
import platform
import sys
import uuid
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newsbert.images.package_sets import SERVING_NAMES
from newsbert.serving import shipped_model
from newsbert.serving.shipped_model import ShippedModel
from newsbert.serving.torchserve import jar_libraries

if TYPE_CHECKING:
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component

DPKG_STATUS = Path("/var/lib/dpkg/status")
_CLASSIFIER = "License :: OSI Approved :: "


def write(model_path: Path, output: Path) -> int:
    """Write the SBOM of this environment and its model to `output`; return its number of components."""
    import cyclonedx
    from cyclonedx.output.json import JsonV1Dot6

    tools = Path(cyclonedx.__file__).parents[1]
    # Leave out the packages that write the SBOM, unless they are installed among the rest.
    path = [entry for entry in sys.path if Path(entry) != tools or Path(entry) == Path(__file__).parents[3]]
    sbom = _create_sbom(shipped_model.read(model_path), path)
    text = JsonV1Dot6(sbom).output_as_string(indent=2)
    # The library adds the time and a random number. Remove both, so that the same content gives the same file.
    document = json.loads(text)
    document["metadata"].pop("timestamp", None)
    document.pop("serialNumber", None)
    content = json.dumps(document, indent=2, sort_keys=True)
    document["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, content).urn
    output.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return len(document["components"])


def _create_sbom(model: ShippedModel, path: list[str]) -> "Bom":
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType

    image = Component(
        name=SERVING_NAMES[model.server], type=ComponentType.CONTAINER, version=model.name, bom_ref="image"
    )
    sbom = Bom(components=[_describe_model(model), *_python(path), *list_java_libraries(path), *_debian()])
    sbom.metadata.component = image
    sbom.register_dependency(image, sbom.components)
    return sbom


def _describe_model(model: ShippedModel) -> "Component":
    """Return the model's component: its name and version, the contract's digest, its base model, data and labels."""
    import hashlib

    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentType

    contract = json.loads(model.contract)
    name, _, version = model.name.partition("/")
    properties = {
        "newsbert.base_model": contract["base_model"]["name"],
        "newsbert.base_model_sha256": contract["base_model"]["sha256"],
        "newsbert.data": contract["data"]["name"],
        "newsbert.data_digest": contract["data"]["sha256"],
        "newsbert.labels": ", ".join(contract["labels"]),
    }
    return Component(
        name=name,
        version=version or None,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=f"model:{name}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=hashlib.sha256(model.contract).hexdigest())],
        properties=[Property(name=key, value=str(value)) for key, value in properties.items()],
    )


def _python(path: list[str]) -> "Iterator[Component]":
    """Yield the Python packages on a search path."""
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    seen = set()
    for distribution in metadata.distributions(path=path):
        name = distribution.metadata["Name"]
        url = PackageURL("pypi", name=name.lower().replace("_", "-"), version=distribution.version)
        if url in seen:
            continue
        seen.add(url)
        yield Component(
            name=name,
            version=distribution.version,
            type=ComponentType.LIBRARY,
            purl=url,
            bom_ref=str(url),
            licenses=_find_licences(distribution.metadata),
        )


def list_java_libraries(path: list[str]) -> "Iterator[Component]":
    """Yield the libraries inside TorchServe's jar, as scanners know them."""
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    jar = jar_libraries.find(path)
    for library in jar_libraries.libraries(jar) if jar else ():
        url = PackageURL("maven", library.group, library.name, library.version or None)
        yield Component(
            name=library.name,
            group=library.group,
            version=library.version or None,
            type=ComponentType.LIBRARY,
            purl=url,
            bom_ref=str(url),
            properties=[Property(name="newsbert.inside", value=jar_libraries.NAME)],
        )


def _find_licences(metadata: Any) -> list[Any]:
    """Return a package's licences, from the first of the three metadata fields that has a short text."""
    from cyclonedx.contrib.license.factories import LicenseFactory

    factory = LicenseFactory()
    if metadata["License-Expression"]:
        return [factory.make_from_string(metadata["License-Expression"])]
    if metadata["License"] and "\n" not in metadata["License"]:
        return [factory.make_from_string(metadata["License"])]
    names = [
        line.removeprefix(_CLASSIFIER) for line in metadata.get_all("Classifier", []) if line.startswith(_CLASSIFIER)
    ]
    return [factory.make_with_name(name) for name in names]


def _debian() -> "Iterator[Component]":
    """Yield the system's packages, if it is Debian or a derivative."""
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    if not DPKG_STATUS.is_file():
        return
    release = platform.freedesktop_os_release()
    system = release.get("ID", "debian")
    distro = "-".join(filter(None, [system, release.get("VERSION_ID")]))
    for paragraph in DPKG_STATUS.read_text(encoding="utf-8").split("\n\n"):
        package = email.message_from_string(paragraph)
        if not package["Package"] or "installed" not in (package["Status"] or "").split():
            continue
        # Advisories name the source of a package, as `upstream` does here, and in the SBOMs of others.
        source, _, source_version = (package["Source"] or package["Package"]).partition(" ")
        upstream = source + (f"@{source_version.strip('()')}" if source_version else "")
        qualifiers = {"arch": package["Architecture"], "distro": distro, "upstream": upstream}
        url = PackageURL("deb", system, package["Package"], package["Version"], qualifiers)
        yield Component(
            name=package["Package"], version=package["Version"], type=ComponentType.LIBRARY, purl=url, bom_ref=str(url)
        )


def main() -> None:
    """Write the SBOM."""
    parser = argparse.ArgumentParser(prog="newsbert.images.programs.sbom", description="Write a CycloneDX SBOM.")
    parser.add_argument("model", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    print(f"{write(arguments.model, arguments.output)} components")


if __name__ == "__main__":
    main()
