"""Java's properties files: whatever is written is read back, and nothing else."""

import re

import hypothesis.strategies as st
import pytest
from hypothesis import given

from newsbert.serving.torchserve import java_properties

TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.text(" \t\n\r\f\\#!=:u0aü\x00\x7f\x85\u2028😀")
ESCAPE = re.compile(r"\\(u[0-9a-f]{4}|.)", re.DOTALL)
LETTERS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


def _unescape(text: str) -> str:
    units = ESCAPE.sub(lambda m: chr(int(m[1][1:], 16)) if len(m[1]) > 1 else LETTERS.get(m[1], m[1]), text)
    return units.encode("utf-16", "surrogatepass").decode("utf-16")


def _load(content: bytes) -> dict[str, str]:
    """Read as the documentation of `java.util.Properties.load` has it."""
    loaded = {}
    for line in re.split(r"[\r\n]+", content.decode("latin-1")):
        logical = line.lstrip(" \t\f")
        if logical and logical[0] not in "#!":
            match = re.fullmatch(r"((?:\\.|[^\\ \t\f=:])*)[ \t\f]*[=:]?[ \t\f]*(.*)", logical)
            assert match
            loaded[_unescape(match[1])] = _unescape(match[2])
    return loaded


@given(st.dictionaries(TEXTS, TEXTS))
def test_properties_are_the_same_after_writing_and_reading(properties: dict[str, str]) -> None:
    assert _load(java_properties.dump(properties)) == properties


def test_attack_a_newline_in_a_value_adds_no_property() -> None:
    assert _load(java_properties.dump({"model_store": "/a\nmanagement_address=http://0.0.0.0:1"})).keys() == {
        "model_store"
    }


def test_a_name_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        java_properties.dump({"a": "\udcff"})
