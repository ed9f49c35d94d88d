"""Cache of a frozen encoder's vectors: computed once for every text and stored in the cache directory.

The vectors of a split are in a file of their own, mapped into memory. Rows that another split has as well are copied
from its file, for instance after rows were added to a file or a label was corrected. A copy equals what this machine
would compute again. The sums of a row are rounded according to the shape of its batch, so that shape is a function of
the row's length.
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
_LENGTH_MULTIPLE = 16
"""Multiple of tokens that rows are padded to."""

COPY_ROWS = 16_384
REPORT_ROWS = 100


def of(
    encoder: BertTraining,
    weights: str,
    rows: TokenRows,
    key: str,
    pad_id: int,
    on_rows: Callable[[int, int], None] = lambda done, rows: None,
) -> FloatArray:
    """Return the encoder's vectors for the first token of all rows: `(rows, hidden)`, memory-mapped and read-only.

    Their cache key consists of the weights and the key of the token ids.

    Args:
        encoder: In evaluation mode.
        weights: Digest of its weights, configuration and precision.
        rows: Token ids.
        key: Cache key of the token ids: see `token_cache.key`.
        pad_id: The id that pads a batch.
        on_rows: Called from time to time with the number of computed rows, and of all rows to compute.

    Raises:
        NewsbertError: If the cache directory cannot be written to.
    """
    kind = f"features/{hashlib.sha256(f'{_FORMAT} {weights}'.encode()).hexdigest()}"
    others = environment.cache_dir() / kind

    def write(part: Path) -> None:
        write_vectors(part, others, encoder, rows, pad_id, on_rows)

    directory = cache.get_or_create_dir(kind, key, write)
    vectors = _read(directory)
    if vectors is None:
        shutil.rmtree(directory)
        directory = cache.get_or_create_dir(kind, key, write)
        vectors = _read(directory)
    assert vectors is not None
    return vectors


def _read(directory: Path) -> FloatArray | None:
    """Return the vectors in a directory; `None` if they are incomplete, or another process is removing them."""
    with contextlib.suppress(OSError, ValueError, EOFError):
        vectors: FloatArray = np.load(directory / _VECTORS, mmap_mode="r", allow_pickle=False)
        return vectors
    return None


def write_vectors(
    part: Path, others: Path, encoder: BertTraining, rows: TokenRows, pad_id: int, on_rows: Callable[[int, int], None]
) -> None:
    """Write the vectors of all rows: copy those that another directory has, and compute the others.

    Args:
        part: A new directory.
        others: The directory of vectors of the same encoder.
        encoder: The encoder.
        rows: Token ids of the rows.
        pad_id: The id that pads a batch.
        on_rows: Called with the numbers of computed rows and of all rows to compute.
    """
    part.mkdir()
    digests = np.fromiter((_hash_row(rows[row].tobytes()) for row in range(len(rows))), np.uint64, len(rows))
    shape = (len(rows), encoder.classifier.in_features)
    vectors = np.lib.format.open_memmap(part / _VECTORS, "w+", np.float32, shape)
    missing = _copy_cached(others, digests, vectors)
    done = reported = 0
    max_length = encoder.embeddings.position_embeddings.num_embeddings
    for batch, padded in _iter_batches(rows.lengths, missing, max_length):
        ids = pad([rows[row] for row in batch.tolist()], pad_id)
        padding = [(0, target - actual) for target, actual in zip(padded, ids[0].shape, strict=True)]
        input_ids, attention_mask = (torch.from_numpy(np.pad(array, padding)) for array in ids)
        with torch.inference_mode():
            vectors[batch] = encoder.encode(input_ids, attention_mask)[: len(batch)].float().numpy()
        done += len(batch)
        if done - reported >= REPORT_ROWS:
            on_rows(reported := done, len(missing))
    vectors.flush()
    np.save(part / _DIGESTS, digests)


def _iter_batches(lengths: IntArray, rows: IntArray, most: int) -> Iterator[tuple[IntArray, tuple[int, int]]]:
    """Yield the rows of a batch, and its shape."""
    padded = np.minimum(-(-lengths[rows] // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE, most)
    for length in np.unique(padded).tolist():
        matching, size = rows[padded == length], max(1, _BATCH_TOKENS // length)
        for start in range(0, len(matching), size):
            yield matching[start : start + size], (size, length)


def _copy_cached(parent: Path, digests: "np.typing.NDArray[np.uint64]", vectors: FloatArray) -> IntArray:
    """Copy the vectors of rows from existing directories; return the rows that are in none."""
    missing = np.arange(len(digests))
    for other in parent.glob("[!.]*"):
        cached = _read(other)
        if cached is None or not len(missing):
            continue
        with contextlib.suppress(OSError, ValueError, EOFError):
            other_digests = np.load(other / _DIGESTS, allow_pickle=False)
            _, targets, sources = np.intersect1d(digests[missing], other_digests, return_indices=True)
            order = np.argsort(sources)  # read in the order on disk
            targets, sources = targets[order], sources[order]
            for start in range(0, len(targets), COPY_ROWS):
                part = slice(start, start + COPY_ROWS)
                vectors[missing[targets[part]]] = cached[sources[part]]
            missing = np.delete(missing, targets)
    return missing


def _hash_row(row: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(row, digest_size=8).digest(), "little")
