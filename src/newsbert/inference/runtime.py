"""Inference from a bundle to `predict(texts) -> probabilities (batch, num_labels)`, with one module per runtime."""

import functools
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from newsbert.bundle.bundle import AUTO, COMPANION_FILE, INT8_GRAPH, Bundle, files_of
from newsbert.core import cpu
from newsbert.core.types import FloatArray, IntArray
from newsbert.data.text import NewsItem, preprocess
from newsbert.errors import ModelError, UsageError
from newsbert.evaluation.calibration import softmax
from newsbert.evaluation.mixing import Mix, find_confident
from newsbert.inference.companion import MAX_CHARACTERS, Companion
from newsbert.inference.tokenization import Ids, SequenceTokenizer, pad

SUB_BATCH_TOKENS = 256
"""Maximum number of tokens that a core computes at once, padding included. More cost more padding and cache misses."""

MIN_TOKENS = 128
"""Minimum number of tokens that occupy a core: a batch is not split further to use all cores."""


CASCADES = (AUTO, "on", "off")
"""Values of the setting of the cascade."""

NEVER = math.inf
"""Threshold of a cascade that is off: the companion answers no text alone."""


@dataclass
class InferenceTimings:
    """Cost of inference: tokens of every text that the model reads, and seconds in the tokenizer and in the model.

    Attributes:
        tokens: Number of tokens of every text that the model reads.
        tokenizer_s: Seconds in the tokenizer and the companion.
        model_s: Seconds in the model.
        by_companion: For every text whether the companion answered it alone.
    """

    tokens: list[int] = field(default_factory=list)
    tokenizer_s: float = 0.0
    model_s: float = 0.0
    by_companion: list[bool] = field(default_factory=list)

    def add(self, other: "InferenceTimings") -> None:
        """Add the cost of other predictions."""
        self.tokens += other.tokens
        self.tokenizer_s += other.tokenizer_s
        self.model_s += other.model_s
        self.by_companion += other.by_companion


@dataclass(frozen=True)
class EncodedTexts:
    """Texts that are ready for the model.

    Attributes:
        ids: Token ids of every text, special tokens included, without padding; empty for a text that the companion
            answers alone.
        companion: Logarithms of the companion's probabilities, `(texts, num_labels)`; `None` without a companion.
        by_companion: Whether the companion answers a text alone, `(texts,)`.
    """

    ids: list[list[int]]
    companion: FloatArray | None
    by_companion: NDArray[np.bool_]

    @property
    def answers(self) -> FloatArray | None:
        """Probabilities of the companion, `(texts, num_labels)`; `None` without a companion."""
        return None if self.companion is None else np.exp(self.companion)

    def part(self, start: int, end: int) -> "EncodedTexts":
        """Return the texts from `start` to `end`, which is not included."""
        companion = None if self.companion is None else self.companion[start:end]
        return EncodedTexts(self.ids[start:end], companion, self.by_companion[start:end])


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
    """Inference pipeline: a bundle's preprocessing, one of its graphs, its temperature, and its companion.

    Args:
        bundle: The bundle.
        graph: Graph that computes a batch with all threads.
        threads: Number of these threads.
        single: The same graph with one thread, which supports concurrent calls. Cores with a batch of their own do not
            wait for one another, as they do on a common batch.
        cascade: Whether the companion answers texts alone: `on`, `off` or `auto`; see `resolve_cascade`.

    Attributes:
        threshold: Probability from which the companion answers a text alone.
    """

    def __init__(
        self,
        bundle: Bundle,
        graph: InferenceSession,
        threads: int = 1,
        single: InferenceSession | None = None,
        *,
        cascade: str = AUTO,
    ) -> None:
        self._contract = bundle.contract
        self._graph = graph
        self._single = single
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads) if single else None
        self._tokenizer = SequenceTokenizer.load(
            bundle.path / "tokenizer.json", bundle.contract.max_length, bundle.contract.pad_id
        )
        info = bundle.contract.companion
        self._companion = Companion.load(bundle.path / COMPANION_FILE, info) if info else None
        has_cascade = resolve_cascade(bundle, cascade)
        self.threshold = info.threshold if info and info.threshold is not None and has_cascade else NEVER

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

    def choose_tier(self, sequence: str) -> float:
        """Return the threshold at which the tier that answers a prepared sequence answers all others, too."""
        return 0.0 if self.encode([sequence]).by_companion[0] else NEVER

    def reads(self, sequence: str) -> int:
        """Return the number of characters that are read of a prepared sequence: the beginning of a long one."""
        model = max(end for _, end in self._tokenizer.spans(sequence))
        return model if self._companion is None else max(model, min(len(sequence), MAX_CHARACTERS))

    def integrated_gradients(self, sequence: str, label: int, tolerance: float) -> TokenAttributions | None:
        """Return the contributions of a prepared sequence's tokens to a label's probability.

        Args:
            sequence: Text as `prepare` returns it.
            label: The index of the label.
            tolerance: Maximum gap between the attributions' sum and the difference that they explain. The gap is larger
                if even many points do not suffice.

        Returns:
            The attributions, or `None` if the graph has no gradients, or the bundle has a companion.
        """
        if not isinstance(self._graph, Differentiable) or self._companion is not None:
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

    def predict_prepared(
        self, sequences: Sequence[str], measured: InferenceTimings | None = None, threshold: float | None = None
    ) -> FloatArray:
        """Return the probabilities of prepared sequences: `(batch, num_labels)`, in input order.

        Rows are sorted by length and run in batches of few tokens, so that little is computed on padding.

        Args:
            sequences: Texts as `prepare` returns them.
            measured: Receives the cost of this call.
            threshold: Probability from which the companion answers alone; the runtime's by default.
        """
        measured = measured or InferenceTimings()
        started = time.perf_counter()
        encoded = self.encode(sequences, threshold)
        tokenized = time.perf_counter()
        probabilities = encoded.answers
        if probabilities is None:
            probabilities = np.empty((len(sequences), len(self._contract.labels)), dtype=np.float32)
        rows_of_model = np.flatnonzero(~encoded.by_companion)
        measured.by_companion = encoded.by_companion.tolist()
        measured.tokens = [len(encoded.ids[row]) for row in rows_of_model]
        max_tokens = SUB_BATCH_TOKENS * self._threads
        if self._pool is not None:
            max_tokens = min(SUB_BATCH_TOKENS, max(MIN_TOKENS, -(-sum(measured.tokens) // self._threads)))
        batches = [rows_of_model[batch] for batch in sub_batches(measured.tokens, max_tokens)]

        def run(rows: IntArray, *, all_cores: bool) -> None:
            companion = None if encoded.companion is None else encoded.companion[rows]
            probabilities[rows] = self.compute([encoded.ids[row] for row in rows], companion, all_cores=all_cores)

        if self._pool is not None and len(batches) > 1:
            # Longest batch first: no core should start on it when the others are done.
            list(self._pool.map(functools.partial(run, all_cores=False), reversed(batches)))
        else:
            for rows in batches:
                run(rows, all_cores=True)
        measured.tokenizer_s, measured.model_s = tokenized - started, time.perf_counter() - tokenized
        return probabilities

    def encode(self, sequences: Sequence[str], threshold: float | None = None) -> EncodedTexts:
        """Tokenize prepared sequences, but for those that the companion answers alone.

        Args:
            sequences: Texts as `prepare` returns them.
            threshold: Probability from which the companion answers alone; the runtime's by default.
        """
        if self._companion is None:
            return EncodedTexts(self._tokenizer.encode(sequences), None, np.zeros(len(sequences), np.bool_))
        companion = self._companion.predict(sequences)
        by_companion = find_confident(companion, self.threshold if threshold is None else threshold)
        ids: list[list[int]] = [[] for _ in sequences]
        rows = np.flatnonzero(~by_companion).tolist()
        for row, sequence_ids in zip(rows, self._tokenizer.encode([sequences[row] for row in rows]), strict=True):
            ids[row] = sequence_ids
        return EncodedTexts(ids, companion, by_companion)

    def compute(
        self, ids: Sequence[Sequence[int]], companion: FloatArray | None = None, *, all_cores: bool
    ) -> FloatArray:
        """Return the probabilities of one batch of token ids: `(batch, num_labels)`.

        Args:
            ids: Token ids of every text, as `encode` returns them. They are padded to the longest.
            companion: Logarithms of the companion's probabilities, `(batch, num_labels)`, to mix with the model's.
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
        info = self._contract.companion
        if info is None or companion is None:
            return softmax(logits, self._contract.temperature)
        mix = Mix(info.model_weight, info.companion_weight)
        return mix.apply(logits / np.float32(self._contract.temperature), companion)


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


def resolve_cascade(bundle: Bundle, name: str) -> bool:
    """Return whether the companion answers the texts alone of which it is sure.

    Args:
        bundle: The bundle.
        name: `on`, `off`, or `auto`: where training has found a threshold that costs little accuracy. That depends on
            the text alone, and never on the load.

    Raises:
        UsageError: If it has another name.
        ModelError: If it is `on`, and the contract has no threshold.
    """
    if name not in CASCADES:
        raise UsageError(f"no cascade {name!r}", f"choose one of {', '.join(CASCADES)}")
    has_threshold = bundle.contract.companion is not None and bundle.contract.companion.threshold is not None
    if name == "on" and not has_threshold:
        raise ModelError(
            f"{bundle.path} has no threshold for a cascade", "choose auto; or train with a larger --cascade-loss"
        )
    return has_threshold and name != "off"


def load_runtime(bundle: Bundle, name: str = AUTO, threads: int | None = None, *, cascade: str = AUTO) -> Runtime:
    """Load a bundle's graph into a runtime.

    Args:
        bundle: A verified bundle.
        name: Name of the runtime, as `resolve_runtime` takes it.
        threads: Number of cores; defaults to all that this process may use.
        cascade: Whether the companion answers texts alone: `on`, `off` or `auto`; see `resolve_cascade`.

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
            return Runtime(bundle, graph, threads, OnnxGraph(file, 1), cascade=cascade)
    elif kind == "openvino":
        from newsbert.inference.runtimes.openvino import OpenVinoGraph

        graph = OpenVinoGraph(file, threads, "bf16" if variant == "bf16" else "f32")
    else:
        from newsbert.inference.runtimes.pytorch import TorchGraph

        graph = TorchGraph(bundle.path, threads, bf16=variant == "bf16", compiled=variant == "compiled")
    return Runtime(bundle, graph, threads, cascade=cascade)
