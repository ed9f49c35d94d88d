"""What is inside TorchServe's jar is in the SBOM, so that scanners see it."""

import sys
import zipfile
from pathlib import Path

import pytest

from newsbert.images.programs import sbom
from newsbert.serving.torchserve import jar_libraries
from newsbert.serving.torchserve.jar_libraries import Library

pytest.importorskip("cyclonedx", reason="needs newsbert[image]")


@pytest.fixture
def jar() -> Path:
    libraries = jar_libraries.find(sys.path)
    if libraries is None:
        pytest.skip("TorchServe is not installed")
    return libraries


def test_the_installed_jar_is_the_known_one(jar: Path) -> None:
    libraries = jar_libraries.libraries(jar)
    assert Library("io.netty", "netty-codec-http", "4.1.53.Final") in libraries
    assert Library("org.yaml", "snakeyaml", "2.1") in libraries
    assert len(libraries) > 50


def test_every_listed_library_has_classes_in_the_jar(jar: Path) -> None:
    with zipfile.ZipFile(jar) as content:
        names = "\n".join(content.namelist())
    for package in ("com/google/gson/", "org/apache/logging/log4j/core/", "io/grpc/stub/", "org/yaml/snakeyaml/",
                    "org/apache/commons/compress/", "org/apache/commons/io/", "com/lmax/disruptor/", "groovy/lang/",
                    "io/prometheus/client/", "com/google/protobuf/", "com/google/common/", "picocli/"):  # fmt: skip
        assert f"\n{package}" in names, package


def test_an_unknown_jar_lists_only_its_own_netty_versions(tmp_path: Path) -> None:
    file = tmp_path / "ts" / "frontend" / jar_libraries.NAME
    file.parent.mkdir(parents=True)
    with zipfile.ZipFile(file, "w") as content:
        content.writestr(
            "META-INF/io.netty.versions.properties",
            "netty-common.version=4.2.0.Final\nnetty-evil.version=1 2\nnetty-x\\n.version=3\n",
        )
    assert jar_libraries.find([str(tmp_path)]) == file
    assert jar_libraries.libraries(file) == [Library("io.netty", "netty-common", "4.2.0.Final")]
    with zipfile.ZipFile(file, "w") as content:
        content.writestr("a.class", b"")
    assert jar_libraries.libraries(file) == []


def test_the_sbom_has_maven_packages(jar: Path) -> None:
    urls = {str(component.purl) for component in sbom.list_java_libraries([str(jar.parents[2])])}
    assert "pkg:maven/io.netty/netty-codec-http@4.1.53.Final" in urls
    assert "pkg:maven/org.apache.logging.log4j/log4j-core@2.17.1" in urls
    assert list(sbom.list_java_libraries(["/nowhere"])) == []
