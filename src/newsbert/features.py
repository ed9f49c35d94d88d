"""What a frozen encoder makes of texts: computed once and kept in the cache directory."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from newsbert import config
from newsbert.bert_training import BertTraining
from newsbert.errors import NewsbertError
from newsbert.evaluation import FloatArray
from newsbert.runtimes import sub_batches
from newsbert.runtimes.tokenization import pad
from newsbert.token_rows import TokenRows

_FORMAT = 3
_BATCH_TOKENS = 2048
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
        on_rows: Called now and then with the number of rows that are done, and of all.

    Raises:
        NewsbertError: If the cache directory cannot be written to.
    """
    name = hashlib.sha256(f"{_FORMAT} {weights} {key}".encode()).hexdigest()
    file = config.cache_dir() / "features" / f"{name}.npy"
    try:
        found = _read(file)
        if found is None:
            file.parent.mkdir(parents=True, exist_ok=True)
            _write(file, encoder, rows, pad_id, on_rows)
            found = _read(file)
    except OSError as error:
        raise NewsbertError(f"{file} cannot be used: {error}", "make room, or set NEWSBERT_CACHE_DIR") from error
    assert found is not None
    return found


def _read(file: Path) -> FloatArray | None:
    """The vectors in a file, or nothing if it is not there or not whole."""
    try:
        found: FloatArray = np.load(file, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return found


def _write(
    file: Path, encoder: BertTraining, rows: TokenRows, pad_id: int, on_rows: Callable[[int, int], None]
) -> None:
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    shape = (len(rows), encoder.classifier.in_features)
    try:
        found = np.lib.format.open_memmap(partial, "w+", np.float32, shape)
        done = told = 0
        for batch in sub_batches(rows.lengths.tolist(), _BATCH_TOKENS):
            input_ids, attention_mask = pad([rows[row] for row in batch], pad_id)
            with torch.inference_mode():
                vectors = encoder.encode(torch.from_numpy(input_ids), torch.from_numpy(attention_mask))
                found[batch] = vectors.float().numpy()
            done += len(batch)
            if done - told >= _TOLD_ROWS:
                on_rows(told := done, len(rows))
        found.flush()
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
