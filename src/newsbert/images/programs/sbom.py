"""`python -m newsbert.images.programs.sbom ARCHIVE OUTPUT`: the CycloneDX bill of materials of the image it runs in.

It lists the model, every Python package that is there, the libraries inside TorchServe's jar, and the system's
packages. The same image gives the same bill.
Source: https://cyclonedx.org/specification/overview/, written with CycloneDX's own library.
"""

import argparse
import email
import json
import platform
import sys
import uuid
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newsbert.bundle.contract import CONTRACT_FILE
from newsbert.serving import archive
from newsbert.serving.torchserve import jar_libraries

if TYPE_CHECKING:
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component

DPKG_STATUS = Path("/var/lib/dpkg/status")
_CLASSIFIER = "License :: OSI Approved :: "


def write(model_archive: Path, output: Path) -> int:
    """Write the bill of this environment and a model archive to `output`; return how many components it names."""
    import cyclonedx
    from cyclonedx.output.json import JsonV1Dot6

    tools = Path(cyclonedx.__file__).parents[1]
    # What writes the bill is not of the image, unless it is installed among the rest.
    path = [entry for entry in sys.path if Path(entry) != tools or Path(entry) == Path(__file__).parents[3]]
    bill = _bill(model_archive, path)
    text = JsonV1Dot6(bill).output_as_string(indent=2)
    # The library stamps each with the time and a random number; the same content is to be the same file.
    document = json.loads(text)
    document["metadata"].pop("timestamp", None)
    document.pop("serialNumber", None)
    content = json.dumps(document, indent=2, sort_keys=True)
    document["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, content).urn
    output.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return len(document["components"])


def _bill(model_archive: Path, path: list[str]) -> "Bom":
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType

    image = Component(name="torchserve", type=ComponentType.CONTAINER, version=archive.served(model_archive).model)
    bill = Bom(components=[_model(model_archive), *_python(path), *_java(path), *_debian()])
    bill.metadata.component = image
    bill.register_dependency(image, bill.components)
    return bill


def _model(model_archive: Path) -> "Component":
    """The model: its name and version, the bundle's digest, and what it was made of."""
    import hashlib

    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentType

    with zipfile.ZipFile(model_archive) as content:
        contract_text = content.read(CONTRACT_FILE)
    contract = json.loads(contract_text)
    name, _, version = archive.served(model_archive).model.partition("/")
    told = {
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
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=hashlib.sha256(contract_text).hexdigest())],
        properties=[Property(name=key, value=str(value)) for key, value in told.items()],
    )


def _python(path: list[str]) -> "Iterator[Component]":
    """The Python packages on a search path."""
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
            licenses=_licences(distribution.metadata),
        )


def _java(path: list[str]) -> "Iterator[Component]":
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


def _licences(told: Any) -> list[Any]:
    """A package's licence, from whichever of its metadata's three fields for it says something short."""
    from cyclonedx.contrib.license.factories import LicenseFactory

    make = LicenseFactory()
    if told["License-Expression"]:
        return [make.make_from_string(told["License-Expression"])]
    if told["License"] and "\n" not in told["License"]:
        return [make.make_from_string(told["License"])]
    names = [line.removeprefix(_CLASSIFIER) for line in told.get_all("Classifier", []) if line.startswith(_CLASSIFIER)]
    return [make.make_with_name(name) for name in names]


def _debian() -> "Iterator[Component]":
    """The system's packages, where it is Debian's or one of its family."""
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    if not DPKG_STATUS.is_file():
        return
    system = platform.freedesktop_os_release().get("ID", "debian")
    for paragraph in DPKG_STATUS.read_text(encoding="utf-8").split("\n\n"):
        told = email.message_from_string(paragraph)
        if not told["Package"] or "installed" not in (told["Status"] or "").split():
            continue
        url = PackageURL("deb", system, told["Package"], told["Version"], {"arch": told["Architecture"]})
        yield Component(
            name=told["Package"], version=told["Version"], type=ComponentType.LIBRARY, purl=url, bom_ref=str(url)
        )


def main() -> None:
    """Write the bill."""
    parser = argparse.ArgumentParser(
        prog="newsbert.images.programs.sbom", description="Write a CycloneDX bill of materials."
    )
    parser.add_argument("archive", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    print(f"{write(arguments.archive, arguments.output)} components")


if __name__ == "__main__":
    main()
