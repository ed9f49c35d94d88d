"""Names and tags of images."""

import hashlib
import re

from newsbert.core.settings import ImageSettings
from newsbert.images.package_sets import SERVING_NAMES
from newsbert.images.reference import ImageReference
from newsbert.tracking.artifacts import ModelLocation

MAX_TAG_LENGTH = 128

HASH_LENGTH = 12

_PLAIN_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[0-9]+)?|run [0-9a-f]{32}")


def serving_tag(located: ModelLocation, digest: str, settings: ImageSettings) -> str:
    """Return a model's serving image: `torchserve:BertModel-2` for `BertModel/2`, after the repository's prefix."""
    return write_name(settings.repository, SERVING_NAMES[settings.server], version_tag(located, digest))


def serving_repositories(settings: ImageSettings) -> tuple[str, ...]:
    """Return the repositories that hold all serving images: the one of the configured server first."""
    names = sorted(SERVING_NAMES.values(), key=lambda name: name != SERVING_NAMES[settings.server])
    return tuple(write_name(settings.repository, name, "x").rpartition(":")[0] for name in names)


def version_tag(located: ModelLocation, digest: str) -> str:
    """Return the tag of a model's image.

    The name of a directory is not unique, so the bundle's digest is added to it.
    """
    return _format_tag(located.name) if located.run_id else f"{_format_tag(located.name)[:80]}-{digest[:HASH_LENGTH]}"


def _format_tag(name: str) -> str:
    """Return a unique tag for a model's name.

    A name that is too long or ambiguous as a tag is shortened and ends in its hash.
    """
    if not _PLAIN_TAG.fullmatch(name) or len(name) > MAX_TAG_LENGTH - HASH_LENGTH - 1:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:HASH_LENGTH]
        name = f"{name[:80]}-{digest}"
    return _sanitize_tag(name)


def _sanitize_tag(text: str) -> str:
    """Replace characters that are invalid in a tag by `-`, and cut the tag to its maximum length."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).lstrip(".-")[:MAX_TAG_LENGTH]


def write_name(repository: str, image: str, tag: str) -> str:
    """Format an image reference.

    Raises:
        UsageError: If the repository is not a valid prefix of a reference.
    """
    prefix = f"{repository.rstrip('/')}/" if repository else ""
    return str(ImageReference.parse(f"{prefix}{image}:{_sanitize_tag(tag)}"))


BASE_NAME, TRAINER_NAME, TRACKING_NAME = "newsbert-base", "newsbert-trainer", "newsbert-tracking"
