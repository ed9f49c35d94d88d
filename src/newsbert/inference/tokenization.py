"""Tokenization of prepared sequences to padded token ids; the same code in training and in every runtime."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from newsbert.errors import ModelError
from newsbert.inference.truncation import Truncation

Ids = NDArray[np.int64]

_SAMPLE_TEXT = "Stocks fall. "


@dataclass(frozen=True)
class SequenceTokenizer:
    """A tokenizer that truncates and never pads.

    Attributes:
        backend: The `tokenizers` object.
        max_length: Number of tokens read of a sequence, special tokens included.
        pad_id: Id of the padding token, for `pad`.
        truncation: Leaves out of a text what cannot change the tokens that are read.
    """

    backend: Tokenizer
    max_length: int
    pad_id: int
    truncation: Truncation

    @classmethod
    def load(cls, file: Path, max_length: int, pad_id: int) -> "SequenceTokenizer":
        """Load a `tokenizer.json` that reads at most `max_length` tokens of a sequence, special tokens included.

        Raises:
            ModelError: If the file is not a tokenizer, or makes no tokens of a text.
        """
        try:
            backend = Tokenizer.from_file(str(file))
            # Override the lengths in the file: only the contract's max_length counts.
            backend.no_padding()
            backend.enable_truncation(max_length)
            loaded = cls(backend, max_length, pad_id, Truncation(backend, max_length))
            encoded = loaded.encode([_SAMPLE_TEXT, _SAMPLE_TEXT * max_length])
        except BaseException as error:  # tokenizers raises plain Exception, and a panic of Rust is not an Exception
            if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
                raise
            raise ModelError(f"{file} cannot be loaded: {error}", "train or fetch the model again") from error
        if not all(encoded):
            raise ModelError(f"{file} makes no tokens of a text", "train or fetch the model again")
        return loaded

    def encode(self, sequences: Sequence[str]) -> list[list[int]]:
        """Return the token ids of every sequence, special tokens included, without padding."""
        shortened = [self.truncation.shorten(sequence)[0] for sequence in sequences]
        return [encoding.ids for encoding in self.backend.encode_batch_fast(shortened)]

    def spans(self, sequence: str) -> list[tuple[int, int]]:
        """Return start and end of every token that is read, in characters; `(0, 0)` for a special token."""
        shortened, indices = self.truncation.shorten(sequence)
        spans = [(int(start), int(end)) for start, end in self.backend.encode(shortened).offsets]
        if indices is None:
            return spans
        return [(int(indices[start]), int(indices[end - 1]) + 1) if end else (0, 0) for start, end in spans]


def pad(ids: Sequence[Sequence[int] | NDArray[np.int32]], pad_id: int) -> tuple[Ids, Ids]:
    """Pad to the longest sequence; return `input_ids` and `attention_mask`, both `(batch, sequence)`."""
    longest = max(map(len, ids))
    input_ids = np.full((len(ids), longest), pad_id, dtype=np.int64)
    attention_mask = np.zeros((len(ids), longest), dtype=np.int64)
    for row, sequence in enumerate(ids):
        input_ids[row, : len(sequence)] = sequence
        attention_mask[row, : len(sequence)] = 1
    return input_ids, attention_mask
