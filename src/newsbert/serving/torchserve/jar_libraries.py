"""Libraries inside TorchServe's jar, which no package manager lists.

Netty records its version in the jar. The other libraries leave no record, since the jar merges the classes of all. They
are taken from the build files of TorchServe 0.12.0, gRPC 1.50.0 and Groovy 3.0.9, and apply to that jar only.
Sources: https://github.com/pytorch/serve/tree/v0.12.0/frontend, https://github.com/grpc/grpc-java/tree/v1.50.0,
https://github.com/apache/groovy/tree/GROOVY_3_0_9
"""

import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from newsbert.bundle.bundle import sha256_of

NAME = "model-server.jar"
KNOWN_SHA256 = "ce340411ce54beaacd3dcfa31644a9aa369a83a36ed687172ba1088a13123dfe"
"""Digest of the jar of TorchServe 0.12.0, the last release."""

_NETTY_FILE = "META-INF/io.netty.versions.properties"
_NETTY_VERSION = re.compile(r"^(netty-[a-z0-9-]+)\.version=([0-9][A-Za-z0-9.]*)\r?$", re.MULTILINE)
_LIBRARIES = """
com.beust:jcommander com.github.javaparser:javaparser-core:3.23.0 com.google.api.grpc:proto-google-common-protos:2.9.0
com.google.code.findbugs:jsr305:3.0.2 com.google.code.gson:gson:2.9.0
com.google.errorprone:error_prone_annotations:2.14.0 com.google.guava:guava:31.1-android
com.google.protobuf:protobuf-java:3.21.7 com.lmax:disruptor:3.4.4 com.thoughtworks.qdox:qdox:1.12.1
commons-cli:commons-cli:1.3.1 commons-io:commons-io:2.16.1 info.picocli:picocli:4.6.1 io.grpc:grpc-api:1.50.0
io.grpc:grpc-core:1.50.0 io.grpc:grpc-netty-shaded:1.50.0 io.grpc:grpc-protobuf:1.50.0 io.grpc:grpc-stub:1.50.0
io.perfmark:perfmark-api:0.25.0 io.prometheus:simpleclient:0.9.0 io.prometheus:simpleclient_servlet:0.9.0
jline:jline:2.14.6 junit:junit org.apache.ant:ant:1.10.11 org.apache.commons:commons-compress:1.25.0
org.apache.logging.log4j:log4j-api:2.17.1 org.apache.logging.log4j:log4j-core:2.17.1
org.apache.logging.log4j:log4j-slf4j-impl:2.17.1 org.codehaus.groovy:groovy:3.0.9
org.codehaus.mojo:animal-sniffer-annotations:1.21 org.junit.jupiter:junit-jupiter-api:5.7.2
org.junit.jupiter:junit-jupiter-engine:5.7.2 org.junit.platform:junit-platform-launcher:1.7.2
org.pytorch:torchserve-plugins-sdk:0.0.5 org.slf4j:slf4j-api:1.7.32 org.testng:testng:7.4.0 org.yaml:snakeyaml:2.1
org.webjars:jquery:3.5.1
"""


class Library(NamedTuple):
    """A Maven artifact; its version is empty if it is unknown."""

    group: str
    name: str
    version: str


def find(path: Iterable[str]) -> Path | None:
    """Return TorchServe's jar on a search path of Python, if there is one."""
    jars = (Path(entry) / "ts" / "frontend" / NAME for entry in path)
    return next((jar for jar in jars if jar.is_file()), None)


def libraries(jar: Path) -> list[Library]:
    """Return the libraries inside the jar, sorted: all of them for the known jar, else only Netty's."""
    known = _parse_known() if sha256_of(jar) == KNOWN_SHA256 else ()
    return sorted({*_read_netty(jar), *known})


def _read_netty(jar: Path) -> Iterator[Library]:
    with zipfile.ZipFile(jar) as content:
        if _NETTY_FILE in content.namelist():
            text = content.read(_NETTY_FILE).decode("utf-8", "replace")
            yield from (Library("io.netty", name, version) for name, version in _NETTY_VERSION.findall(text))


def _parse_known() -> Iterator[Library]:
    for line in _LIBRARIES.split():
        group, name, *version = line.split(":")
        yield Library(group, name, "".join(version))
