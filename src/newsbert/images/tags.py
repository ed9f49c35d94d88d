"""Names and tags of images."""

import hashlib
import re

from newsbert.core.settings import ImageSettings
from newsbert.images.reference import ImageReference
from newsbert.tracking.artifacts import ModelLocation

MAX_TAG_LENGTH = 128

HASH_LENGTH = 12

_PLAIN_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[0-9]+)?|run [0-9a-f]{32}")


def serving_tag(located: ModelLocation, digest: str, settings: ImageSettings) -> str:
    """The serving image of a model: `torchserve:BertModel-2` for `BertModel/2`, behind the repository's prefix."""
    return write_name(settings.repository, SERVING_NAME, version_tag(located, digest))


def serving_repository(settings: ImageSettings) -> str:
    """Return the repository that holds all serving images."""
    return write_name(settings.repository, SERVING_NAME, "x").rpartition(":")[0]


def version_tag(located: ModelLocation, digest: str) -> str:
    """What tells a model's image from others; a directory's name does not, so the bundle's digest is added."""
    return _tag_of(located.name) if located.run_id else f"{_tag_of(located.name)[:80]}-{digest[:HASH_LENGTH]}"


def _tag_of(name: str) -> str:
    """A model's name as a tag; one that a tag cannot tell from others ends in its hash: no two models share one."""
    if not _PLAIN_TAG.fullmatch(name) or len(name) > MAX_TAG_LENGTH - HASH_LENGTH - 1:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:HASH_LENGTH]
        name = f"{name[:80]}-{digest}"
    return _tag(name)


def _tag(text: str) -> str:
    """`text` with characters that a tag may not have as `-`."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).lstrip(".-")[:MAX_TAG_LENGTH]


def write_name(repository: str, image: str, tag: str) -> str:
    """Write an image reference.

    Raises:
        UsageError: If the repository is no prefix of one.
    """
    prefix = f"{repository.rstrip('/')}/" if repository else ""
    return str(ImageReference.parse(f"{prefix}{image}:{_tag(tag)}"))


BASE_NAME, TRAINER_NAME, SERVING_NAME = "newsbert-base", "newsbert-trainer", "torchserve"

TRACKING_NAME = "newsbert-tracking"
