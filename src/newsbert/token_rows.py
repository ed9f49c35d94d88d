"""The token ids of a split's texts: computed once, kept in the cache directory and memory-mapped."""

import hashlib
import itertools
import os
import shutil
from pathlib import Path

import numpy as np

from newsbert import config
from newsbert.data import Split
from newsbert.errors import NewsbertError
from newsbert.ragged import Ragged, RaggedWriter
from newsbert.runtimes.tokenization import SequenceTokenizer

TokenRows = Ragged[np.int32]

_FORMAT = 1
_BATCH = 4096


def key(tokenizer: SequenceTokenizer, split: Split) -> str:
    """What tells these rows from others: the tokenizer, how much it reads, and the texts."""
    return hashlib.sha256(f"{_FORMAT} {tokenizer.backend.to_str()} {split.digest}".encode()).hexdigest()


def of(tokenizer: SequenceTokenizer, split: Split) -> TokenRows:
    """The ids of each text, special tokens included.

    Raises:
        NewsbertError: If the cache directory cannot be written to.
    """
    directory = config.cache_dir() / "tokens" / key(tokenizer, split)
    try:
        if not directory.is_dir():
            directory.parent.mkdir(parents=True, exist_ok=True)
            _write(directory, tokenizer, split)
        return Ragged(directory, np.int32)
    except OSError as error:
        raise NewsbertError(f"{directory} cannot be used: {error}", "make room, or set NEWSBERT_CACHE_DIR") from error


def _write(directory: Path, tokenizer: SequenceTokenizer, split: Split) -> None:
    part = directory.with_name(f".{directory.name}.{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    texts = iter(split.texts)
    try:
        with RaggedWriter(part, np.int32) as writer:
            while batch := list(itertools.islice(texts, _BATCH)):
                writer.extend(tokenizer.encode(batch))
        if not directory.is_dir():  # another process may have been as fast
            part.rename(directory)
    finally:
        shutil.rmtree(part, ignore_errors=True)
