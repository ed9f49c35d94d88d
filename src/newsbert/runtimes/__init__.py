"""From a bundle to `predict(texts) -> probabilities (batch, num_labels)`; one module a runtime."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from newsbert.bundle import Bundle
from newsbert.errors import ModelError
from newsbert.evaluation import FloatArray, softmax
from newsbert.runtimes.tokenization import Ids, SequenceTokenizer, pad
from newsbert.text import NewsItem, prepare

DEFAULT = "onnxruntime"
NAMES = ("onnxruntime", "torch")
SUB_BATCH_ROWS = 16


@dataclass
class Measured:
    """What answering took: tokens of each document, and seconds in the tokenizer and in the model."""

    tokens: list[int] = field(default_factory=list)
    tokenizer_s: float = 0.0
    model_s: float = 0.0


class Graph(Protocol):
    """What a runtime module provides: logits of one padded batch."""

    def logits(self, input_ids: Ids, attention_mask: Ids) -> FloatArray:
        """Return fp32 logits `(batch, num_labels)` of ids and mask `(batch, sequence)`."""
        ...


class Runtime:
    """A bundle's preprocessing in front of one of its graphs, and its temperature behind it."""

    def __init__(self, bundle: Bundle, graph: Graph) -> None:
        self._contract = bundle.contract
        self._graph = graph
        self._tokenizer = SequenceTokenizer.load(
            bundle.path / "tokenizer.json", bundle.contract.max_length, bundle.contract.pad_id
        )

    def prepare(self, item: NewsItem) -> str:
        """Clean and join one item by the bundle's rules.

        Raises:
            ValueError: If the item is no text or empty; the message says which.
        """
        return prepare(item, self._contract.cleaning)

    def predict(self, items: Sequence[NewsItem]) -> FloatArray:
        """Return the probabilities of texts or title/text objects: `(batch, num_labels)`, in the given order.

        Raises:
            ValueError: If an item is no text or empty.
        """
        return self.predict_prepared([self.prepare(item) for item in items])

    def predict_prepared(self, sequences: Sequence[str], measured: Measured | None = None) -> FloatArray:
        """Return the probabilities of sequences that `prepare` gave: `(batch, num_labels)`, in the given order.

        Rows are sorted by length and run in small batches, so that little is computed on padding.

        Args:
            sequences: The texts.
            measured: Takes what it took.
        """
        measured = measured or Measured()
        started = time.perf_counter()
        ids = self._tokenizer.encode(sequences)
        tokenized = time.perf_counter()
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        logits = np.empty((len(ids), len(self._contract.labels)), dtype=np.float32)
        for start in range(0, len(order), SUB_BATCH_ROWS):
            rows = order[start : start + SUB_BATCH_ROWS]
            logits[rows] = self._graph.logits(*pad([ids[row] for row in rows], self._tokenizer.pad_id))
        measured.tokens = [len(each) for each in ids]
        measured.tokenizer_s, measured.model_s = tokenized - started, time.perf_counter() - tokenized
        return softmax(logits, self._contract.temperature) if len(ids) else logits


def load(bundle: Bundle, name: str = DEFAULT, threads: int | None = None) -> Runtime:
    """Load a bundle's graph into the runtime `name`.

    Args:
        bundle: A verified bundle.
        name: One of `NAMES`.
        threads: Threads for a batch; the runtime's own choice if not given.

    Raises:
        ModelError: If there is no such runtime, or the bundle has no graph for it.
    """
    graph: Graph
    if name == "onnxruntime":
        from newsbert.runtimes.onnx import OnnxGraph

        graph = OnnxGraph(bundle.path / "model.onnx", threads)
    elif name == "torch":
        from newsbert.runtimes.pytorch import TorchGraph

        graph = TorchGraph(bundle.path, threads)
    else:
        raise ModelError(f"no runtime {name!r}", f"choose one of {', '.join(NAMES)}")
    return Runtime(bundle, graph)
