"""Parse references of container images: `REPOSITORY[:TAG][@DIGEST]`.

The grammar is that of https://github.com/distribution/reference, without its rarer forms (IPv6 hosts, other digests
than SHA-256).
"""

import re
from dataclasses import dataclass

from newsbert.errors import UsageError

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = rf"(?:localhost|{_LABEL}(?:\.{_LABEL})+|{_LABEL}(?=:[0-9]))(?::[0-9]{{1,5}})?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<repository>(?:{_HOST}/)?{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_MAX_LENGTH = 255
"""Maximum length of a repository's name, in characters.

Source: https://github.com/distribution/reference/blob/main/reference.go
"""


@dataclass(frozen=True)
class ImageReference:
    """The name of an image.

    Attributes:
        repository: The registry, unless it is Docker Hub, and the name there: `registry.example/team/torchserve`.
        tag: The tag, if there is one.
        digest: The digest of the manifest, `sha256:…`, if there is one.
    """

    repository: str
    tag: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.repository}{tag}{f'@{self.digest}' if self.digest else ''}"

    @classmethod
    def parse(cls, text: str) -> "ImageReference":
        """Parse a reference.

        Raises:
            UsageError: If `text` is not a valid reference.
        """
        match = _REFERENCE.fullmatch(text)
        if match is None or len(match["repository"]) > _MAX_LENGTH:
            raise UsageError(f"{text!r:.200} is no image", "write it as registry.example/team/torchserve:BertModel-2")
        return cls(match["repository"], match["tag"], match["digest"])
