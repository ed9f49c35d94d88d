"""Every model has an image tag that Docker takes, and no two models have the same."""

import re
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from newsbert.core.settings import ImageSettings
from newsbert.images.tags import serving_tag
from newsbert.tracking.artifacts import ModelLocation

# https://github.com/distribution/reference: a path component, and a tag
REFERENCE = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("BertModel/2", "torchserve:BertModel-2"),
        ("my.model_x-1/12", "torchserve:my.model_x-1-12"),
        ("run 0123456789abcdef0123456789abcdef", "torchserve:run-0123456789abcdef0123456789abcdef"),
    ],
)
def test_an_image_tag_follows_from_the_model_name(name: str, tag: str) -> None:
    assert _make_tag(name) == tag
    assert _make_tag(name, ImageSettings(repository="registry.example/team")) == f"registry.example/team/{tag}"


def _make_tag(name: str, settings: ImageSettings | None = None) -> str:
    return serving_tag(ModelLocation(name, Path(), "0a1b" * 8), "d" * 64, settings or ImageSettings())


def test_an_unregistered_bundle_has_its_digest_in_the_tag() -> None:
    tags = [serving_tag(ModelLocation("BertModel-2", Path()), digest * 64, ImageSettings()) for digest in "ab"]
    assert tags == ["torchserve:BertModel-2-aaaaaaaaaaaa", "torchserve:BertModel-2-bbbbbbbbbbbb"]


ODD_NAMES = (
    "", "-", "...", "新聞/1", "新聞/2", "Модель/1", "a b/1", "a-b/1", "a,b/1", "-x/1", ".x/1", "a b", "a-b", "a\nb/1",
    "a:b/1", "x//1", "x" * 200 + "/1", "x" * 200 + "/2", "\ud800/1",
)  # fmt: skip


def test_odd_names_have_valid_and_different_tags() -> None:
    tags = [_make_tag(name) for name in ODD_NAMES]
    assert [tag for tag in tags if not REFERENCE.fullmatch(tag)] == []
    assert len(set(tags)) == len(ODD_NAMES)


@settings(max_examples=200, deadline=None)
@given(
    names=st.tuples(st.text(max_size=20), st.text(max_size=20)),
    versions=st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_two_models_never_have_the_same_tag(names: tuple[str, str], versions: tuple[int, int]) -> None:
    assume((names[0], versions[0]) != (names[1], versions[1]))
    # A registered model's name has no slash.
    first, second = (f"{name.replace('/', '')}/{version}" for name, version in zip(names, versions, strict=True))
    assume(first != second)
    tags = [_make_tag(model) for model in (first, second)]
    assert all(REFERENCE.fullmatch(tag) for tag in tags)
    assert tags[0] != tags[1]
