"""What a tokenizer does not get of a long text would have changed none of the tokens that are read."""

import functools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from newsbert.inference.tokenization import SequenceTokenizer
from newsbert.inference.truncation import CHARACTERS_PER_TOKEN, Truncation

MAX_LENGTH = 12

_CHARACTERS = st.one_of(
    st.sampled_from(
        list("aZ9!.-_[]#'\"·。中語한글éßİŁжи\u0301\u0338\u200b\u200d\u00ad\x00\x07\ufffd\u3000\u2028\u0085 \t\n")
    ),
    st.sampled_from(list("\u302e\u302f\U0001d165\U0001d16d\u0344\u0f71\u037e\u1fef\u212b\uac00\ufb01\u01c4🏆👩")),
    st.characters(exclude_categories=["Cs"]),
)
_PIECES = st.one_of(
    st.text(_CHARACTERS, max_size=8),
    st.builds(lambda text, times: text * times, st.text(_CHARACTERS, min_size=1, max_size=3), st.integers(1, 300)),
    st.sampled_from(
        ["[SEP]", "[CLS]", "[MASK]", "[UNK]", "[PAD]", "[C\u0301LS]", "[CLS", "SEP]", "[ SEP ]", "goal", " "]
    ),
)
TEXTS = st.lists(_PIECES, max_size=40).map("".join)


@functools.cache
def _pair(file: Path, change: str) -> tuple[SequenceTokenizer, Tokenizer]:
    """A tokenizer as everything here uses it, and the same one without any shortening."""
    document = json.loads(file.read_text(encoding="utf-8"))
    document["normalizer"].update(json.loads(change))
    altered = Tokenizer.from_str(json.dumps(document))
    altered.enable_truncation(MAX_LENGTH)
    return SequenceTokenizer(altered, MAX_LENGTH, 0, Truncation(altered, MAX_LENGTH)), altered


@pytest.mark.parametrize(
    "change",
    ["{}", '{"lowercase": false}', '{"strip_accents": false}', '{"handle_chinese_chars": false, "clean_text": false}'],
)
@settings(deadline=None, max_examples=150)
@given(text=TEXTS)
def test_the_tokens_and_their_places_are_those_of_the_whole_text(tiny_encoder: Path, change: str, text: str) -> None:
    tokenizer, plain = _pair(tiny_encoder / "tokenizer.json", change)
    whole = plain.encode(text)
    assert tokenizer.encode([text]) == [whole.ids]
    assert tokenizer.spans(text) == whole.offsets


LONG = {
    "exclamation marks": "!" * 400_000,
    "one word": "g" * 400_000,
    "accents": "e" + "\u0301" * 400_000,
    "letters and accents": "e\u0301" * 100_000,
    "removed characters": "\u200b" * 400_000,
    "removed characters and blanks": "\u200b " * 100_000,
    "blanks": "goal" + " " * 400_000 + "cup",
    "long words": f"{'ж' * 200} " * 5_000,
    "special tokens": "[SEP]" * 100_000,
    "words": "goal team " * 100_000,
    "every character": "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)])),
    "every letter once, in one word": "".join(letter for letter in map(chr, range(0x110000)) if letter.isalpha()),
}


@pytest.mark.parametrize("name", LONG)
def test_attack_a_long_text_does_not_reach_the_tokenizer(tiny_encoder: Path, name: str) -> None:
    tokenizer = SequenceTokenizer.load(tiny_encoder / "tokenizer.json", 128, 0)
    shortened, _ = tokenizer.truncation.shorten(LONG[name])
    assert len(shortened) <= 128 * 210
    (ids,) = tokenizer.encode([LONG[name]])
    # The beginning that decides them, and what the shortening has not seen.
    plain = Tokenizer.from_file(str(tiny_encoder / "tokenizer.json"))
    plain.no_padding()
    plain.enable_truncation(128)
    assert ids == plain.encode(LONG[name]).ids


def test_another_tokenizer_reads_so_many_characters_a_token(tiny_encoder: Path) -> None:
    document = json.loads((tiny_encoder / "tokenizer.json").read_text(encoding="utf-8"))
    document["pre_tokenizer"] = {"type": "Whitespace"}
    backend = Tokenizer.from_str(json.dumps(document))
    text = "goal " * 10_000
    assert Truncation(backend, 10).shorten(text) == (text[: 10 * CHARACTERS_PER_TOKEN], None)
    document["pre_tokenizer"] = {"type": "BertPreTokenizer"}
    document["added_tokens"].append({**document["added_tokens"][0], "id": 9, "content": "oal", "special": False})
    assert (
        Truncation(Tokenizer.from_str(json.dumps(document)), 10).shorten(text)[0] == text[: 10 * CHARACTERS_PER_TOKEN]
    )
