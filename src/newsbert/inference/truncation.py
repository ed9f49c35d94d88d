"""The part of a text that decides its first tokens: a tokenizer reads all that it gets, however few tokens are used.

A megabyte of `!` is a million tokens and 150 MB in the tokenizer, of which a model reads the first 128. `shorten`
leaves out what cannot change these. Training, Python, MLflow and every server shorten in the same way, since they all
encode with `SequenceTokenizer`.
"""

import json
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

CHARACTERS_PER_TOKEN = 64
"""For a tokenizer that is not BERT's: a text has at most so many characters for each token that is read."""

_UNTOUCHED = 8
"""Texts of so few characters for each token are left as they are: nothing is gained by looking at them."""

_GROWTH = 8
_UNKNOWN, _NOTHING, _BLANK, _SINGLE, _LETTER = range(5)
"""Kinds of characters: not looked at yet; removed; white space; a word by itself; a part of a word."""

_ADDED_TOKEN = re.compile(r"\[[A-Za-z0-9]{1,32}\]")
_PARTS_OF_ADDED = 3
"""`[`, a word and `]`: one token of the vocabulary, such as `[SEP]`, where there would be three words."""

Indices = NDArray[np.intp]


class Truncation:
    """Leave out of texts what cannot change the first tokens of a tokenizer.

    For BERT's tokenizers (its normalizer, its pre-tokenizer and WordPiece) the tokens are the same as those of the
    whole text, and so are their places. Any other reads the first `CHARACTERS_PER_TOKEN * max_length` characters.

    Args:
        backend: The tokenizer.
        max_length: How many tokens are used.
    """

    def __init__(self, backend: Tokenizer, max_length: int) -> None:
        self._backend = backend
        self._max_length = max_length
        self._max_word = _max_word_of(json.loads(backend.to_str()))
        self._kinds = np.zeros(0x110000, np.uint8)

    def shorten(self, text: str) -> tuple[str, Indices | None]:
        """Return what decides the first tokens of a text, and where its characters are in the text.

        Returns:
            The characters, and their indices in the text; no indices for the beginning of the text.
        """
        if len(text) <= _UNTOUCHED * self._max_length:
            return text, None
        if self._max_word is None:
            return text[: CHARACTERS_PER_TOKEN * self._max_length], None
        words = self._max_length + _PARTS_OF_ADDED
        if "[" in text:
            words *= _PARTS_OF_ADDED
        size = _UNTOUCHED * self._max_length
        while True:
            try:
                codes = np.frombuffer(text[:size].encode("utf-32-le"), np.uint32)
            except UnicodeEncodeError:  # half of a surrogate pair: the tokenizer refuses it
                return text, None
            kinds = self._kinds_of(codes)
            end = _end_of_words(kinds, words)
            if end is not None or size >= len(text):
                break
            size *= _GROWTH
        indices = _needed(kinds[:end], self._max_word)
        if len(indices) == (len(text) if end is None else end):
            return text[:end], None
        return codes[indices].tobytes().decode("utf-32-le"), indices

    def _kinds_of(self, codes: NDArray[np.uint32]) -> NDArray[np.uint8]:
        kinds = self._kinds[codes]
        if (kinds == _UNKNOWN).any():
            unknown = np.unique(codes[kinds == _UNKNOWN])
            self._kinds[unknown] = self._classified([chr(code) for code in unknown.tolist()])
            kinds = self._kinds[codes]
        return kinds

    def _classified(self, characters: list[str]) -> list[int]:
        """Ask the tokenizer itself what it makes of characters between two letters."""
        text = " ".join(f"b{character}d" for character in characters)
        normalized = self._backend.normalizer.normalize_str(text)
        pieces = (piece for piece, _ in self._backend.pre_tokenizer.pre_tokenize_str(normalized))
        kinds = []
        for piece in pieces:
            if piece == "b":
                between = sum(1 for _ in iter(lambda: next(pieces), "d"))
                kinds.append(_SINGLE if between else _BLANK)
            else:
                kinds.append(_NOTHING if piece == "bd" else _LETTER)
        assert len(kinds) == len(characters)
        return kinds


def _max_word_of(tokenizer: dict[str, Any]) -> int | None:
    """Return the longest word that is not unknown, in characters; nothing where the tokenizer is not BERT's."""
    kinds = [(tokenizer.get(part) or {}).get("type") for part in ("normalizer", "pre_tokenizer", "model")]
    added = all(_ADDED_TOKEN.fullmatch(token["content"]) for token in tokenizer.get("added_tokens") or ())
    if kinds != ["BertNormalizer", "BertPreTokenizer", "WordPiece"] or not added:
        return None
    return int(tokenizer["model"]["max_input_chars_per_word"])


def _end_of_words(kinds: NDArray[np.uint8], words: int) -> int | None:
    """Return where the word after so many begins: nothing before it depends on what comes after."""
    places = np.flatnonzero(kinds != _NOTHING)
    starts = places[_starts(kinds[places])]
    return int(starts[words]) if len(starts) > words else None


def _starts(visible: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell which characters begin a word, of those that are not removed."""
    before = np.concatenate(([_BLANK], visible[:-1]))
    starts: NDArray[np.bool_] = (visible == _SINGLE) | ((visible == _LETTER) & (before != _LETTER))
    return starts


def _needed(kinds: NDArray[np.uint8], max_word: int) -> Indices:
    """Return the indices of the characters that are needed.

    A word that is too long is unknown, however long it is: its first characters and the last are enough to know that,
    and where it is. Of white space and characters that are removed, one is as good as many; one stays, so that nothing
    comes together that was apart.
    """
    needed = np.zeros(len(kinds), np.bool_)
    places = np.flatnonzero(kinds != _NOTHING)
    visible = kinds[places]
    order = np.arange(len(visible))
    start_of_word = np.maximum.accumulate(np.where(_starts(visible), order, 0))
    last = np.concatenate((visible[1:], [_BLANK])) != _LETTER
    needed[places] = (visible != _LETTER) | (order - start_of_word < max_word) | last
    gap = (kinds == _NOTHING) | (kinds == _BLANK)
    first = gap & ~np.concatenate(([False], gap[:-1]))
    # In the middle of a word that is too long, what is removed goes with the letters around it.
    before = np.maximum.accumulate(np.where(gap, -1, np.arange(len(kinds))))
    first &= np.where(before >= 0, needed[before], True)
    blanks = np.flatnonzero(kinds == _BLANK)
    numbers = np.cumsum(gap & ~np.concatenate(([False], gap[:-1])))
    _, first_blanks = np.unique(numbers[blanks], return_index=True)
    needed[gap] = first[gap]
    needed[blanks[first_blanks]] = True
    return np.flatnonzero(needed)
