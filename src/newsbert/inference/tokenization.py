"""From prepared sequences to padded token ids; the same code in training and in every runtime."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from newsbert.errors import ModelError
from newsbert.inference.truncation import Truncation

Ids = NDArray[np.int64]

_TRIED = "Stocks fall. "


@dataclass(frozen=True)
class SequenceTokenizer:
    """A tokenizer that truncates and never pads.

    Attributes:
        backend: The `tokenizers` object.
        max_length: Tokens read of a sequence, special tokens included.
        pad_id: The id that `pad` fills with.
        truncation: Leaves out of a text what cannot change the tokens that are read.
    """

    backend: Tokenizer
    max_length: int
    pad_id: int
    truncation: Truncation

    @classmethod
    def load(cls, file: Path, max_length: int, pad_id: int) -> "SequenceTokenizer":
        """Load a `tokenizer.json`, reading at most `max_length` tokens of a sequence, special tokens included.

        Raises:
            ModelError: If it is no tokenizer, or one that makes no tokens of a text.
        """
        try:
            backend = Tokenizer.from_file(str(file))
            # Whatever the file says of lengths is overridden: the contract's max_length is the only one there is.
            backend.no_padding()
            backend.enable_truncation(max_length)
            loaded = cls(backend, max_length, pad_id, Truncation(backend, max_length))
            encoded = loaded.encode([_TRIED, _TRIED * max_length])
        except BaseException as error:  # tokenizers raises Exception itself, and what Rust panics with is no Exception
            if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
                raise
            raise ModelError(f"{file} cannot be loaded: {error}", "train or fetch the model again") from error
        if not all(encoded):
            raise ModelError(f"{file} makes no tokens of a text", "train or fetch the model again")
        return loaded

    def encode(self, sequences: Sequence[str]) -> list[list[int]]:
        """Return the token ids of every sequence, special tokens included, each of its own length."""
        shortened = [self.truncation.shorten(sequence)[0] for sequence in sequences]
        return [encoding.ids for encoding in self.backend.encode_batch_fast(shortened)]

    def spans(self, sequence: str) -> list[tuple[int, int]]:
        """Where each token of a sequence that is read begins and ends, in characters; `(0, 0)` of a special token."""
        shortened, indices = self.truncation.shorten(sequence)
        spans = [(int(start), int(end)) for start, end in self.backend.encode(shortened).offsets]
        if indices is None:
            return spans
        return [(int(indices[start]), int(indices[end - 1]) + 1) if end else (0, 0) for start, end in spans]


def pad(ids: Sequence[Sequence[int] | NDArray[np.int32]], pad_id: int) -> tuple[Ids, Ids]:
    """Pad to the longest: `input_ids` and `attention_mask`, both `(batch, sequence)`."""
    longest = max(map(len, ids))
    input_ids = np.full((len(ids), longest), pad_id, dtype=np.int64)
    attention_mask = np.zeros((len(ids), longest), dtype=np.int64)
    for row, sequence in enumerate(ids):
        input_ids[row, : len(sequence)] = sequence
        attention_mask[row, : len(sequence)] = 1
    return input_ids, attention_mask
