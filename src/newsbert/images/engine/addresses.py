"""Addresses: of the engine, and of images in it."""

import urllib.parse

from newsbert.core import loopback
from newsbert.errors import UsageError


def split_tag(name: str) -> tuple[str, str]:
    """An image's name as repository and tag or digest; a port in the registry's name is no tag."""
    if "@" in name:
        repository, _, digest = name.partition("@")
        return repository, digest
    repository, _, tag = name.rpartition(":")
    return (repository, tag) if repository and "/" not in tag else (name, "latest")


def check_safe(address: str, url: str) -> None:
    """Refuse to talk to another machine's engine in the clear: who does can be anybody.

    Raises:
        UsageError: If `url`, which the SDK makes of the address, is of HTTP and not this machine's.
    """
    if url.startswith("http://") and not loopback.is_loopback(urllib.parse.urlsplit(url).hostname):
        raise UsageError(
            f"the engine {address!r} is another machine's, and would be used without a certificate",
            "have it ask for one, and set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH",
        )
