"""From a bundle to `predict(texts) -> probabilities (batch, num_labels)`; one module a runtime."""

import functools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from newsbert.bundle.bundle import AUTO, INT8_GRAPH, Bundle, files_of
from newsbert.core import cpu
from newsbert.core.types import FloatArray
from newsbert.data.text import NewsItem, preprocess
from newsbert.errors import ModelError
from newsbert.evaluation.calibration import softmax
from newsbert.inference.tokenization import Ids, SequenceTokenizer, pad

SUB_BATCH_TOKENS = 256
"""Tokens that a core computes at once, padding included: more take more padding, and do not fit its caches."""

MIN_TOKENS = 128
"""Fewer do not keep a core busy: a batch is not cut into smaller ones to occupy all cores."""


@dataclass
class InferenceTimings:
    """What answering took: tokens of each document, and seconds in the tokenizer and in the model."""

    tokens: list[int] = field(default_factory=list)
    tokenizer_s: float = 0.0
    model_s: float = 0.0

    def add(self, other: "InferenceTimings") -> None:
        """Add what other answers took."""
        self.tokens += other.tokens
        self.tokenizer_s += other.tokenizer_s
        self.model_s += other.model_s


@dataclass(frozen=True)
class TokenAttributions:
    """Integrated gradients of a label's probability.

    Attributes:
        spans: Where each token of the text begins and ends, in characters; of one that frames it, nowhere: `(0, 0)`.
        attributions: What each adds to the probability, `(tokens,)`.
        gap: What they lack of the difference that they explain: the sum is taken at a limited number of points.
    """

    spans: list[tuple[int, int]]
    attributions: FloatArray
    gap: float


class InferenceSession(Protocol):
    """What a runtime module provides: logits of one padded batch."""

    def logits(self, input_ids: Ids, attention_mask: Ids) -> FloatArray:
        """Return fp32 logits `(batch, num_labels)` of ids and mask `(batch, sequence)`."""
        ...


@runtime_checkable
class Differentiable(Protocol):
    """What a graph that has gradients provides too."""

    def integrated_gradients(
        self, input_ids: Ids, baseline_ids: Ids, label: int, temperature: float, tolerance: float
    ) -> tuple[FloatArray, float] | None:
        """Return what each token adds to a label's probability, `(sequence,)`, and what their sum lacks.

        Nothing, if what it takes is not installed. Both ids are `(1, sequence)`.
        """
        ...


class Runtime:
    """A bundle's preprocessing in front of one of its graphs, and its temperature behind it.

    Args:
        bundle: The bundle.
        graph: Computes a batch with all threads.
        threads: How many these are.
        single: The same with one thread, and can be called from several at once. Cores that compute a batch each waste
            nothing on waiting for one another, as they do when they share one.
    """

    def __init__(
        self, bundle: Bundle, graph: InferenceSession, threads: int = 1, single: InferenceSession | None = None
    ) -> None:
        self._contract = bundle.contract
        self._graph = graph
        self._single = single
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads) if single else None
        self._tokenizer = SequenceTokenizer.load(
            bundle.path / "tokenizer.json", bundle.contract.max_length, bundle.contract.pad_id
        )

    def prepare(self, item: NewsItem) -> str:
        """Clean and join one item by the bundle's rules.

        Raises:
            ValueError: If the item is no text or empty; the message says which.
        """
        return preprocess(item, self._contract.cleaning)

    def estimate_tokens(self, sequence: str) -> int:
        """Estimate how many tokens of a sequence are read, as cheaply as its length: rarely fewer than there are."""
        return min(self._contract.max_length, len(sequence) + 2)

    def reads(self, sequence: str) -> int:
        """How many characters of a sequence that `prepare` gave are read: a long one's beginning."""
        return max(end for _, end in self._tokenizer.spans(sequence))

    def integrated_gradients(self, sequence: str, label: int, tolerance: float) -> TokenAttributions | None:
        """Tell what each token of a sequence that `prepare` gave adds to a label's probability.

        Args:
            sequence: The text.
            label: The index of the label.
            tolerance: What the attributions may lack of the difference that they explain; where even many points do
                not do, they lack more.

        Returns:
            The attributions; nothing where the graph has no gradients.
        """
        if not isinstance(self._graph, Differentiable):
            return None
        (ids,) = self._tokenizer.encode([sequence])
        spans = self._tokenizer.spans(sequence)
        framing = np.array([end == 0 for _, end in spans])
        nothing = np.where(framing, ids, self._tokenizer.pad_id)
        found = self._graph.integrated_gradients(
            np.array([ids]), nothing[None], label, self._contract.temperature, tolerance
        )
        return None if found is None else TokenAttributions(spans, *found)

    def predict(self, items: Sequence[NewsItem]) -> FloatArray:
        """Return the probabilities of texts or title/text objects: `(batch, num_labels)`, in the given order.

        Raises:
            ValueError: If an item is no text or empty.
        """
        return self.predict_prepared([self.prepare(item) for item in items])

    def predict_prepared(self, sequences: Sequence[str], measured: InferenceTimings | None = None) -> FloatArray:
        """Return the probabilities of sequences that `prepare` gave: `(batch, num_labels)`, in the given order.

        Rows are sorted by length and run in batches of few tokens, so that little is computed on padding.

        Args:
            sequences: The texts.
            measured: Takes what it took.
        """
        measured = measured or InferenceTimings()
        started = time.perf_counter()
        ids = self._tokenizer.encode(sequences)
        tokenized = time.perf_counter()
        logits = np.empty((len(ids), len(self._contract.labels)), dtype=np.float32)
        measured.tokens = [len(each) for each in ids]
        most = SUB_BATCH_TOKENS * self._threads
        if self._pool is not None:
            most = min(SUB_BATCH_TOKENS, max(MIN_TOKENS, -(-sum(measured.tokens) // self._threads)))
        batches = list(sub_batches(measured.tokens, most))

        def run(graph: InferenceSession, rows: list[int]) -> None:
            batch = graph.logits(*pad([ids[row] for row in rows], self._tokenizer.pad_id))
            if batch.shape != (len(rows), logits.shape[1]):
                raise ModelError(
                    f"the graph gives {batch.shape} logits for {len(rows)} texts and {logits.shape[1]} labels",
                    "train or fetch the model again",
                )
            logits[rows] = batch

        if self._pool is not None and self._single is not None and len(batches) > 1:
            # The longest first: no core should begin it when the others are done.
            list(self._pool.map(functools.partial(run, self._single), reversed(batches)))
        else:
            for rows in batches:
                run(self._graph, rows)
        measured.tokenizer_s, measured.model_s = tokenized - started, time.perf_counter() - tokenized
        return softmax(logits, self._contract.temperature) if len(ids) else logits


def sub_batches(lengths: Sequence[int], most: int = SUB_BATCH_TOKENS) -> Iterator[list[int]]:
    """Cut rows of these lengths into batches of rows of about the same length: their indices, the shortest first.

    A batch has at most `most` tokens, padding included, or one row.
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[row] > most:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def resolve_runtime(bundle: Bundle, name: str = AUTO) -> str:
    """The name of the runtime that is to answer.

    Args:
        bundle: The bundle.
        name: A runtime; or `auto`: the quantized graph, where training found it good enough to ship and this
            processor multiplies 8-bit integers, else the fp32 graph.

    Raises:
        UsageError: If there is no such runtime.
        ModelError: If the bundle has no graph for it.
    """
    if name == AUTO:
        return "onnxruntime-int8" if INT8_GRAPH in bundle.contract.graphs and cpu.multiplies_int8() else "onnxruntime"
    needed = files_of(name)[0]
    if needed not in bundle.contract.files and not (bundle.path / needed).is_file():
        raise ModelError(
            f"{bundle.path} has no {needed}, which the runtime {name!r} reads",
            "choose onnxruntime; a quantized graph is left out where it would cost accuracy",
        )
    return name


def load_runtime(bundle: Bundle, name: str = AUTO, threads: int | None = None) -> Runtime:
    """Load a bundle's graph into a runtime.

    Args:
        bundle: A verified bundle.
        name: As `chosen` takes it.
        threads: Cores to use; as many as this process may, if not given.

    Raises:
        UsageError: If there is no such runtime.
        ModelError: If the bundle has no graph for it.
        MissingExtraError: If it is not installed.
    """
    name = resolve_runtime(bundle, name)
    threads = threads or cpu.cores()
    kind, _, variant = name.partition("-")
    file = bundle.path / files_of(name)[0]
    graph: InferenceSession
    if kind == "onnxruntime":
        from newsbert.inference.runtimes.onnxruntime import OnnxGraph

        graph = OnnxGraph(file, threads)
        if variant == "int8" and threads > 1:  # of fp32, two would take too much memory
            return Runtime(bundle, graph, threads, OnnxGraph(file, 1))
    elif kind == "openvino":
        from newsbert.inference.runtimes.openvino import OpenVinoGraph

        graph = OpenVinoGraph(file, threads, "bf16" if variant == "bf16" else "f32")
    else:
        from newsbert.inference.runtimes.pytorch import TorchGraph

        graph = TorchGraph(bundle.path, threads, bf16=variant == "bf16", compiled=variant == "compiled")
    return Runtime(bundle, graph, threads)
