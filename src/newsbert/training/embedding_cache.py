"""What a frozen encoder makes of texts: computed once for every text and kept in the cache directory.

The vectors of a split are in a file of their own, mapped into memory. Rows that another split has had, such as those of
a file to which some were added or in which a label was mended, are copied from there. They are what they would be if
they were computed again on the same machine: the sums of a row are rounded as the shape of its batch has it, so that
shape is a function of the row's length.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from newsbert.core import cache, environment
from newsbert.core.types import FloatArray, IntArray
from newsbert.inference.tokenization import pad
from newsbert.training.bert import BertTraining
from newsbert.training.token_cache import TokenRows

_FORMAT = 5
_VECTORS, _DIGESTS = "vectors.npy", "digests.npy"
_BATCH_TOKENS = 1024
_LENGTHS = 16
"""Rows are padded to a multiple of that."""

_COPIED_ROWS = 16_384
_TOLD_ROWS = 100


def of(
    encoder: BertTraining,
    weights: str,
    rows: TokenRows,
    key: str,
    pad_id: int,
    on_rows: Callable[[int, int], None] = lambda done, rows: None,
) -> FloatArray:
    """The encoder's vector for the first token of each row: `(rows, hidden)`, mapped from its file and read-only.

    They are found again by the weights and by what tells the token ids from others.

    Args:
        encoder: In evaluation mode.
        weights: Digest of its weights, configuration and precision.
        rows: Token ids.
        key: Theirs: see `token_rows.key`.
        pad_id: The id that pads a batch.
        on_rows: Called now and then with the number of rows that are done, and of all that are to be computed.

    Raises:
        NewsbertError: If the cache directory cannot be written to.
    """
    kind = f"features/{hashlib.sha256(f'{_FORMAT} {weights}'.encode()).hexdigest()}"
    others = environment.cache_dir() / kind
    found = cache.get_or_create_dir(kind, key, lambda part: _write(part, others, encoder, rows, pad_id, on_rows))
    vectors = _read(found)
    if vectors is None:
        shutil.rmtree(found)
        found = cache.get_or_create_dir(kind, key, lambda part: _write(part, others, encoder, rows, pad_id, on_rows))
        vectors = _read(found)
    assert vectors is not None
    return vectors


def _read(directory: Path) -> FloatArray | None:
    """The vectors in a directory; nothing if they are not whole, or somebody is removing them."""
    with contextlib.suppress(OSError, ValueError, EOFError):
        vectors: FloatArray = np.load(directory / _VECTORS, mmap_mode="r", allow_pickle=False)
        return vectors
    return None


def _write(
    part: Path, others: Path, encoder: BertTraining, rows: TokenRows, pad_id: int, on_rows: Callable[[int, int], None]
) -> None:
    part.mkdir()
    digests = np.fromiter((_digest(rows[row].tobytes()) for row in range(len(rows))), np.uint64, len(rows))
    shape = (len(rows), encoder.classifier.in_features)
    vectors = np.lib.format.open_memmap(part / _VECTORS, "w+", np.float32, shape)
    missing = _copy(others, digests, vectors)
    done = told = 0
    most = encoder.embeddings.position_embeddings.num_embeddings
    for batch, padded in _batches(rows.lengths, missing, most):
        ids = pad([rows[row] for row in batch.tolist()], pad_id)
        filling = [(0, whole - found) for whole, found in zip(padded, ids[0].shape, strict=True)]
        input_ids, attention_mask = (torch.from_numpy(np.pad(each, filling)) for each in ids)
        with torch.inference_mode():
            vectors[batch] = encoder.encode(input_ids, attention_mask)[: len(batch)].float().numpy()
        done += len(batch)
        if done - told >= _TOLD_ROWS:
            on_rows(told := done, len(missing))
    vectors.flush()
    np.save(part / _DIGESTS, digests)


def _batches(lengths: IntArray, rows: IntArray, most: int) -> Iterator[tuple[IntArray, tuple[int, int]]]:
    """Rows that share a batch, and what shape it has."""
    padded = np.minimum(-(-lengths[rows] // _LENGTHS) * _LENGTHS, most)
    for length in np.unique(padded).tolist():
        same, size = rows[padded == length], max(1, _BATCH_TOKENS // length)
        for start in range(0, len(same), size):
            yield same[start : start + size], (size, length)


def _copy(parent: Path, digests: "np.typing.NDArray[np.uint64]", vectors: FloatArray) -> IntArray:
    """Copy the vectors of rows that are in the directories there are; return which rows are in none."""
    missing = np.arange(len(digests))
    for other in parent.glob("[!.]*"):
        copied = _read(other)
        if copied is None or not len(missing):
            continue
        with contextlib.suppress(OSError, ValueError, EOFError):
            known = np.load(other / _DIGESTS, allow_pickle=False)
            _, own, theirs = np.intersect1d(digests[missing], known, return_indices=True)
            order = np.argsort(theirs)  # as they are on the disk
            own, theirs = own[order], theirs[order]
            for start in range(0, len(own), _COPIED_ROWS):
                part = slice(start, start + _COPIED_ROWS)
                vectors[missing[own[part]]] = copied[theirs[part]]
            missing = np.delete(missing, own)
    return missing


def _digest(row: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(row, digest_size=8).digest(), "little")
