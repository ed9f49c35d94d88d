"""References of images: what is one, and which of them a tag of the registry may choose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsbert.core.settings import ImageSettings
from newsbert.errors import UsageError
from newsbert.images.build import DIGEST_TAG, pushed_image
from newsbert.images.reference import ImageReference

DIGEST = "sha256:" + "1f" * 32


@pytest.mark.parametrize(
    "text",
    [
        "torchserve",
        "torchserve:BertModel-2",
        "127.0.0.1:5000/newsbert-test/torchserve:a",
        "localhost/x",
        "registry.example/team/a__b/c-d.e@" + DIGEST,
        "registry.example:443/team/torchserve:1@" + DIGEST,
    ],
)
def test_references_are_the_same_after_reading_and_writing(text: str) -> None:
    assert str(ImageReference.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["a@b@" + DIGEST, "", " x", "x y:1", "-x:1", "../x:1", "/x:1", "x:1\n", "http://x/y:1", "X:1", "x:", "x::1",
     "x@sha256:1", "x" * 300, "ü:1", "x:\u202e1", "registry.example/a//b:1", "x@" + DIGEST.upper()],
)  # fmt: skip
def test_an_invalid_reference_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no image"):
        ImageReference.parse(text)


@given(st.text(max_size=60) | st.from_regex(r"[a-z./:@-]{1,40}", fullmatch=True))
def test_an_accepted_reference_has_only_its_parts(text: str) -> None:
    try:
        reference = ImageReference.parse(text)
    except UsageError:
        return
    assert str(reference) == text
    assert text.isascii() and text.isprintable() and " " not in text and not text.startswith("-")


@pytest.mark.parametrize(
    "tag",
    [
        "attacker.example/team/torchserve@" + DIGEST,
        "registry.example/team-evil/torchserve@" + DIGEST,
        "registry.example/team/torchserve/evil@" + DIGEST,
        "registry.example/team/newsbert-trainer@" + DIGEST,
        "registry.example/team/torchserve:latest",
        "registry.example/team/torchserve:1@" + DIGEST,
        "torchserve@" + DIGEST,
        "registry.example/team/torchserve@" + DIGEST + "\nx",
        "--privileged",
        "",
    ],
)
def test_attack_a_tag_with_another_registry_is_refused(tag: str) -> None:
    settings = ImageSettings(repository="registry.example/team")
    with pytest.raises(UsageError, match="the registry names"):
        pushed_image({DIGEST_TAG: tag}, "BertModel/7", settings)


def test_a_tag_chooses_an_image_of_the_configured_repository() -> None:
    tag = "registry.example/team/torchserve@" + DIGEST
    assert str(pushed_image({DIGEST_TAG: tag}, "BertModel/7", ImageSettings(repository="registry.example/team"))) == tag
    assert pushed_image({}, "BertModel/7", ImageSettings()) is None
    with pytest.raises(UsageError, match="the registry names"):
        pushed_image({DIGEST_TAG: tag}, "BertModel/7", ImageSettings())
