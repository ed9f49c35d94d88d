"""Inference from a bundle to `predict(texts) -> probabilities (batch, num_labels)`, with one module per runtime."""

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
"""Maximum number of tokens that a core computes at once, padding included. More cost more padding and cache misses."""

MIN_TOKENS = 128
"""Minimum number of tokens that occupy a core: a batch is not split further to use all cores."""


@dataclass
class InferenceTimings:
    """Cost of inference: tokens of every document, and seconds in the tokenizer and in the model."""

    tokens: list[int] = field(default_factory=list)
    tokenizer_s: float = 0.0
    model_s: float = 0.0

    def add(self, other: "InferenceTimings") -> None:
        """Add the cost of other predictions."""
        self.tokens += other.tokens
        self.tokenizer_s += other.tokenizer_s
        self.model_s += other.model_s


@dataclass(frozen=True)
class TokenAttributions:
    """Integrated gradients of a label's probability.

    Attributes:
        spans: Start and end of every token in the text, in characters; `(0, 0)` for a special token.
        attributions: Contributions to the probability, `(tokens,)`.
        gap: The explained difference, minus the sum of the attributions. The integral is a sum over a limited number of
            points.
    """

    spans: list[tuple[int, int]]
    attributions: FloatArray
    gap: float


class InferenceSession(Protocol):
    """Interface of a runtime module: computes the logits of one padded batch."""

    def logits(self, input_ids: Ids, attention_mask: Ids) -> FloatArray:
        """Return fp32 logits `(batch, num_labels)` of ids and mask `(batch, sequence)`."""
        ...


@runtime_checkable
class Differentiable(Protocol):
    """Interface of a graph that also provides gradients."""

    def integrated_gradients(
        self, input_ids: Ids, baseline_ids: Ids, label: int, temperature: float, tolerance: float
    ) -> tuple[FloatArray, float] | None:
        """Return the tokens' contributions to a label's probability, `(sequence,)`, and the gap of their sum.

        The result is `None` if a required package is not installed. Both ids are `(1, sequence)`.
        """
        ...


class Runtime:
    """Inference pipeline: a bundle's preprocessing, one of its graphs, and its temperature.

    Args:
        bundle: The bundle.
        graph: Graph that computes a batch with all threads.
        threads: Number of these threads.
        single: The same graph with one thread, which supports concurrent calls. Cores with a batch of their own do not
            wait for one another, as they do on a common batch.
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

    @property
    def independent_cores(self) -> int:
        """Number of cores that can compute a batch of their own at the same time; see `compute`."""
        return self._threads if self._single else 1

    def prepare(self, item: NewsItem) -> str:
        """Clean one item and join its title and text by the bundle's rules.

        Raises:
            TextError: If the item is not text, or is empty; the message says which.
        """
        return preprocess(item, self._contract.cleaning)

    def estimate_tokens(self, sequence: str) -> int:
        """Estimate cheaply, from its length, how many tokens of a sequence are read; rarely too low."""
        return min(self._contract.max_length, len(sequence) + 2)

    def reads(self, sequence: str) -> int:
        """Return the number of characters that the model reads of a prepared sequence: the beginning of a long one."""
        return max(end for _, end in self._tokenizer.spans(sequence))

    def integrated_gradients(self, sequence: str, label: int, tolerance: float) -> TokenAttributions | None:
        """Return the contributions of a prepared sequence's tokens to a label's probability.

        Args:
            sequence: Text as `prepare` returns it.
            label: The index of the label.
            tolerance: Maximum gap between the attributions' sum and the difference that they explain. The gap is larger
                if even many points do not suffice.

        Returns:
            The attributions, or `None` if the graph has no gradients.
        """
        if not isinstance(self._graph, Differentiable):
            return None
        (ids,) = self._tokenizer.encode([sequence])
        spans = self._tokenizer.spans(sequence)
        is_special = np.array([end == 0 for _, end in spans])
        baseline = np.where(is_special, ids, self._tokenizer.pad_id)
        result = self._graph.integrated_gradients(
            np.array([ids]), baseline[None], label, self._contract.temperature, tolerance
        )
        return None if result is None else TokenAttributions(spans, *result)

    def predict(self, items: Sequence[NewsItem]) -> FloatArray:
        """Return the probabilities of texts or title/text objects: `(batch, num_labels)`, in input order.

        Raises:
            ValueError: If an item is not text, or is empty.
        """
        return self.predict_prepared([self.prepare(item) for item in items])

    def predict_prepared(self, sequences: Sequence[str], measured: InferenceTimings | None = None) -> FloatArray:
        """Return the probabilities of prepared sequences: `(batch, num_labels)`, in input order.

        Rows are sorted by length and run in batches of few tokens, so that little is computed on padding.

        Args:
            sequences: Texts as `prepare` returns them.
            measured: Receives the cost of this call.
        """
        measured = measured or InferenceTimings()
        started = time.perf_counter()
        ids = self.encode(sequences)
        tokenized = time.perf_counter()
        probabilities = np.empty((len(ids), len(self._contract.labels)), dtype=np.float32)
        measured.tokens = [len(sequence_ids) for sequence_ids in ids]
        max_tokens = SUB_BATCH_TOKENS * self._threads
        if self._pool is not None:
            max_tokens = min(SUB_BATCH_TOKENS, max(MIN_TOKENS, -(-sum(measured.tokens) // self._threads)))
        batches = list(sub_batches(measured.tokens, max_tokens))

        def run(rows: list[int], *, all_cores: bool) -> None:
            probabilities[rows] = self.compute([ids[row] for row in rows], all_cores=all_cores)

        if self._pool is not None and len(batches) > 1:
            # Longest batch first: no core should start on it when the others are done.
            list(self._pool.map(functools.partial(run, all_cores=False), reversed(batches)))
        else:
            for rows in batches:
                run(rows, all_cores=True)
        measured.tokenizer_s, measured.model_s = tokenized - started, time.perf_counter() - tokenized
        return probabilities

    def encode(self, sequences: Sequence[str]) -> list[list[int]]:
        """Return the token ids of prepared sequences, special tokens included, without padding."""
        return self._tokenizer.encode(sequences)

    def compute(self, ids: Sequence[Sequence[int]], *, all_cores: bool) -> FloatArray:
        """Return the probabilities of one batch of token ids: `(batch, num_labels)`.

        Args:
            ids: Token ids of every text, as `encode` returns them. They are padded to the longest.
            all_cores: Use all cores for this batch. Without it, `independent_cores` calls can run at the same time.

        Raises:
            ModelError: If the graph fails, or gives logits of another shape.
        """
        graph = self._graph if all_cores or self._single is None else self._single
        logits = graph.logits(*pad(ids, self._tokenizer.pad_id))
        if logits.shape != (len(ids), len(self._contract.labels)):
            raise ModelError(
                f"the graph gives {logits.shape} logits for {len(ids)} texts and {len(self._contract.labels)} labels",
                "train or fetch the model again",
            )
        return softmax(logits, self._contract.temperature)


def sub_batches(lengths: Sequence[int], most: int = SUB_BATCH_TOKENS) -> Iterator[list[int]]:
    """Yield batches of rows of about the same length as indices, the shortest rows first.

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
    """Return the name of the runtime to use.

    Args:
        bundle: The bundle.
        name: A runtime, or `auto`. The latter is the quantized graph if training accepted it and this processor
            multiplies 8-bit integers, else the fp32 graph.

    Raises:
        UsageError: If there is no such runtime.
        ModelError: If the bundle has no graph for it.
    """
    if name == AUTO:
        return "onnxruntime-int8" if INT8_GRAPH in bundle.contract.graphs and cpu.multiplies_int8() else "onnxruntime"
    graph_file = files_of(name)[0]
    if graph_file not in bundle.contract.files and not (bundle.path / graph_file).is_file():
        raise ModelError(
            f"{bundle.path} has no {graph_file}, which the runtime {name!r} reads",
            "choose onnxruntime; a quantized graph is left out where it would cost accuracy",
        )
    return name


def load_runtime(bundle: Bundle, name: str = AUTO, threads: int | None = None) -> Runtime:
    """Load a bundle's graph into a runtime.

    Args:
        bundle: A verified bundle.
        name: Name of the runtime, as `resolve_runtime` takes it.
        threads: Number of cores; defaults to all that this process may use.

    Raises:
        UsageError: If there is no such runtime.
        ModelError: If the bundle has no graph for it.
        MissingExtraError: If the runtime is not installed.
    """
    name = resolve_runtime(bundle, name)
    threads = threads or cpu.cores()
    kind, _, variant = name.partition("-")
    file = bundle.path / files_of(name)[0]
    graph: InferenceSession
    if kind == "onnxruntime":
        from newsbert.inference.runtimes.onnxruntime import OnnxGraph

        graph = OnnxGraph(file, threads)
        if variant == "int8" and threads > 1:  # two fp32 graphs would take too much memory
            return Runtime(bundle, graph, threads, OnnxGraph(file, 1))
    elif kind == "openvino":
        from newsbert.inference.runtimes.openvino import OpenVinoGraph

        graph = OpenVinoGraph(file, threads, "bf16" if variant == "bf16" else "f32")
    else:
        from newsbert.inference.runtimes.pytorch import TorchGraph

        graph = TorchGraph(bundle.path, threads, bf16=variant == "bf16", compiled=variant == "compiled")
    return Runtime(bundle, graph, threads)
