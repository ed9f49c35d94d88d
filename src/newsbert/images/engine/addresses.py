"""Addresses of the engine and of images in it."""

import urllib.parse

from newsbert.core import loopback
from newsbert.errors import UsageError


def split_tag(name: str) -> tuple[str, str]:
    """Split an image's name into repository and tag or digest; a port in the registry's name is no tag."""
    if "@" in name:
        repository, _, digest = name.partition("@")
        return repository, digest
    repository, _, tag = name.rpartition(":")
    return (repository, tag) if repository and "/" not in tag else (name, "latest")


def check_safe(address: str, url: str) -> None:
    """Refuse another machine's engine without a certificate, since anyone could use that engine.

    Raises:
        UsageError: If `url`, which the SDK derives from the address, is an HTTP URL of another machine.
    """
    if url.startswith("http://") and not loopback.is_loopback(urllib.parse.urlsplit(url).hostname):
        raise UsageError(
            f"the engine {address!r} is another machine's, and would be used without a certificate",
            "have it ask for one, and set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH",
        )
