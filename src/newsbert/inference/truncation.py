"""Truncation of a text to the part that determines its first tokens.

A tokenizer reads the whole text, even if only a few tokens are used. A megabyte of `!` is a million tokens and 150 MB
in the tokenizer, of which a model reads the first 128. `shorten` leaves out what cannot change these. Training, Python,
MLflow and every server shorten in the same way, since they all encode with `SequenceTokenizer`.
"""

import json
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

CHARACTERS_PER_TOKEN = 64
"""Maximum number of characters for every token that is read, for a tokenizer that is not BERT's."""

_MIN_CHARACTERS_PER_TOKEN = 8
"""Characters per token up to which a text is not shortened: there is nothing to gain."""

_GROWTH = 8
_UNKNOWN, _REMOVED, _WHITE_SPACE, _SINGLE, _LETTER = range(5)
"""Classes of characters: not classified yet; removed; white space; a word by itself; part of a word."""

_ADDED_TOKEN = re.compile(r"\[[A-Za-z0-9]{1,32}\]")
_ADDED_TOKEN_PARTS = 3
"""Number of words in `[`, a word and `]`, which may be one token of the vocabulary, such as `[SEP]`."""

Indices = NDArray[np.intp]


class Truncation:
    """Truncation of texts that leaves the first tokens of a tokenizer unchanged.

    For BERT's tokenizers (its normalizer, its pre-tokenizer and WordPiece), the tokens and their positions are the same
    as those of the whole text. Any other tokenizer reads the first `CHARACTERS_PER_TOKEN * max_length` characters.

    Args:
        backend: The tokenizer.
        max_length: Number of tokens that are used.
    """

    def __init__(self, backend: Tokenizer, max_length: int) -> None:
        self._backend = backend
        self._max_length = max_length
        self._max_word = _find_max_word(json.loads(backend.to_str()))
        self._kinds = np.zeros(0x110000, np.uint8)

    def shorten(self, text: str) -> tuple[str, Indices | None]:
        """Return the characters that determine the first tokens of a text, and their indices in the text.

        Returns:
            The characters, and their indices in the text. The indices are `None` if the characters are its beginning.
        """
        if len(text) <= _MIN_CHARACTERS_PER_TOKEN * self._max_length:
            return text, None
        if self._max_word is None:
            return text[: CHARACTERS_PER_TOKEN * self._max_length], None
        words = self._max_length + _ADDED_TOKEN_PARTS
        if "[" in text:
            words *= _ADDED_TOKEN_PARTS
        size = _MIN_CHARACTERS_PER_TOKEN * self._max_length
        while True:
            try:
                codes = np.frombuffer(text[:size].encode("utf-32-le"), np.uint32)
            except UnicodeEncodeError:  # half of a surrogate pair: the tokenizer rejects it
                return text, None
            kinds = self._classify_codes(codes)
            end = _find_end(kinds, words)
            if end is not None or size >= len(text):
                break
            size *= _GROWTH
        indices = _find_needed(kinds[:end], self._max_word)
        if len(indices) == (len(text) if end is None else end):
            return text[:end], None
        return codes[indices].tobytes().decode("utf-32-le"), indices

    def _classify_codes(self, codes: NDArray[np.uint32]) -> NDArray[np.uint8]:
        kinds = self._kinds[codes]
        if (kinds == _UNKNOWN).any():
            unknown = np.unique(codes[kinds == _UNKNOWN])
            self._kinds[unknown] = self._classify([chr(code) for code in unknown.tolist()])
            kinds = self._kinds[codes]
        return kinds

    def _classify(self, characters: list[str]) -> list[int]:
        """Classify characters by the tokenizer's output for them between two letters."""
        text = " ".join(f"b{character}d" for character in characters)
        normalized = self._backend.normalizer.normalize_str(text)
        pieces = (piece for piece, _ in self._backend.pre_tokenizer.pre_tokenize_str(normalized))
        kinds = []
        for piece in pieces:
            if piece == "b":
                between = sum(1 for _ in iter(lambda: next(pieces), "d"))
                kinds.append(_SINGLE if between else _WHITE_SPACE)
            else:
                kinds.append(_REMOVED if piece == "bd" else _LETTER)
        assert len(kinds) == len(characters)
        return kinds


def _find_max_word(tokenizer: dict[str, Any]) -> int | None:
    """Return the maximum length of a known word in characters, or `None` if the tokenizer is not BERT's."""
    kinds = [(tokenizer.get(part) or {}).get("type") for part in ("normalizer", "pre_tokenizer", "model")]
    added = all(_ADDED_TOKEN.fullmatch(token["content"]) for token in tokenizer.get("added_tokens") or ())
    if kinds != ["BertNormalizer", "BertPreTokenizer", "WordPiece"] or not added:
        return None
    return int(tokenizer["model"]["max_input_chars_per_word"])


def _find_end(kinds: NDArray[np.uint8], words: int) -> int | None:
    """Return the start of the word after the first `words` ones: nothing before it depends on later text."""
    places = np.flatnonzero(kinds != _REMOVED)
    starts = places[_find_starts(kinds[places])]
    return int(starts[words]) if len(starts) > words else None


def _find_starts(visible: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return a mask of the characters that begin a word, among those that are not removed."""
    before = np.concatenate(([_WHITE_SPACE], visible[:-1]))
    starts: NDArray[np.bool_] = (visible == _SINGLE) | ((visible == _LETTER) & (before != _LETTER))
    return starts


def _find_needed(kinds: NDArray[np.uint8], max_word: int) -> Indices:
    """Return the indices of the characters that are needed.

    A word that is too long is unknown, however long it is. Its first characters and its last one suffice to show that,
    and to locate it. Of white space and removed characters, one is as good as many. One stays, so that separate words
    do not merge.
    """
    needed = np.zeros(len(kinds), np.bool_)
    places = np.flatnonzero(kinds != _REMOVED)
    visible = kinds[places]
    order = np.arange(len(visible))
    start_of_word = np.maximum.accumulate(np.where(_find_starts(visible), order, 0))
    last = np.concatenate((visible[1:], [_WHITE_SPACE])) != _LETTER
    needed[places] = (visible != _LETTER) | (order - start_of_word < max_word) | last
    gap = (kinds == _REMOVED) | (kinds == _WHITE_SPACE)
    first = gap & ~np.concatenate(([False], gap[:-1]))
    # Inside a word that is too long, removed characters are left out with the letters around them.
    before = np.maximum.accumulate(np.where(gap, -1, np.arange(len(kinds))))
    first &= np.where(before >= 0, needed[before], True)
    blanks = np.flatnonzero(kinds == _WHITE_SPACE)
    numbers = np.cumsum(gap & ~np.concatenate(([False], gap[:-1])))
    _, first_blanks = np.unique(numbers[blanks], return_index=True)
    needed[gap] = first[gap]
    needed[blanks[first_blanks]] = True
    return np.flatnonzero(needed)
