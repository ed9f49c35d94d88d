"""Token ids of a split's texts: computed once and stored in the cache directory."""

import hashlib
import itertools
from pathlib import Path

import numpy as np

from newsbert.core import cache
from newsbert.data.dataset import Split
from newsbert.data.ragged_array import RaggedArray, RaggedWriter
from newsbert.inference.tokenization import SequenceTokenizer

TokenRows = RaggedArray[np.int32]

_FORMAT = 1
_BATCH = 4096


def key(tokenizer: SequenceTokenizer, split: Split) -> str:
    """Return the cache key of the rows, from the tokenizer, its maximum length, and the texts."""
    return hashlib.sha256(f"{_FORMAT} {tokenizer.backend.to_str()} {split.digest}".encode()).hexdigest()


def of(tokenizer: SequenceTokenizer, split: Split) -> TokenRows:
    """Return the token ids of the texts, special tokens included.

    Raises:
        NewsbertError: If the cache directory cannot be written to.
    """
    return RaggedArray(
        cache.get_or_create_dir("tokens", key(tokenizer, split), lambda part: _write(part, tokenizer, split)), np.int32
    )


def _write(directory: Path, tokenizer: SequenceTokenizer, split: Split) -> None:
    texts = iter(split.texts)
    with RaggedWriter(directory, np.int32) as writer:
        while batch := list(itertools.islice(texts, _BATCH)):
            writer.extend(tokenizer.encode(batch))
