"""Benchmark of a bundle's runtimes on this machine: their speed, and their agreement with a reference."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from newsbert.bundle.bundle import AUTO, COMPANION_FILE, RUNTIME_FILES, Bundle, files_of
from newsbert.core import cpu
from newsbert.core.types import FloatArray
from newsbert.data.text import NewsItem
from newsbert.errors import NewsbertError
from newsbert.inference.prediction import COMPANION
from newsbert.inference.runtime import load_runtime, resolve_runtime

SECONDS = 2.0
"""Duration of a measurement. A runtime is measured in two ways: one text at a time, and all texts at once."""

_MIN_ROUNDS = 3
_TIMED_TEXTS = 30
"""Number of texts that are classified one at a time."""


@dataclass(frozen=True)
class Measurement:
    """Benchmark result of a runtime on this machine.

    Attributes:
        name: Name of the runtime, or `companion` or `cascade`.
        chosen: Whether `auto` resolves to this runtime.
        problem: Reason why the runtime could not be measured; then no other value is known.
        size_bytes: Size of the graph or weights file that it reads.
        texts_per_s: Throughput for many texts at once; median of several rounds.
        p50_s: Median latency of a single text.
        p99_s: 99th percentile of the latency of a single text.
        agreement: Fraction of texts that get the same label as from the reference.
        max_difference: Largest difference in probability from the reference.
        batch_difference: Largest difference in probability between a text alone and the same text in a batch.
    """

    name: str
    chosen: bool
    problem: str | None = None
    size_bytes: int = 0
    texts_per_s: float = 0.0
    p50_s: float = 0.0
    p99_s: float = 0.0
    agreement: float = 0.0
    max_difference: float = 0.0
    batch_difference: float = 0.0


def reference(bundle: Bundle, texts: Sequence[NewsItem]) -> tuple[str, FloatArray]:
    """Return name and probabilities of the reference, without cascade: PyTorch if installed, else the fp32 graph."""
    try:
        return "torch", load_runtime(bundle, "torch", cascade="off").predict(texts)
    except ModuleNotFoundError:
        return "onnxruntime", load_runtime(bundle, "onnxruntime", cascade="off").predict(texts)


def compare(
    bundle: Bundle, texts: Sequence[NewsItem], expected: FloatArray, names: Sequence[str] = (), seconds: float = SECONDS
) -> Iterator[Measurement]:
    """Measure runtimes one after the other, with all cores that this process may use; after all of them, the tiers.

    Args:
        bundle: A verified bundle.
        texts: Texts or title/text objects to classify.
        expected: The reference's probabilities: `(texts, num_labels)`.
        names: Names of the runtimes; all if empty.
        seconds: Duration of a measurement, once for one text at a time and once for all texts at once.

    Raises:
        UsageError: If there is no such runtime.
    """
    default = resolve_runtime(bundle)
    for name in names or RUNTIME_FILES:
        file = bundle.path / files_of(name)[0]
        try:
            runtime = load_runtime(bundle, name, cpu.cores(), cascade="off")
            yield _measure(name, name == default, file.stat().st_size, runtime.predict, texts, expected, seconds)
        except (NewsbertError, ModuleNotFoundError) as error:
            yield Measurement(name, name == default, getattr(error, "message", str(error)))
        except RuntimeError as error:  # torch has no compiler, or OpenVINO does not support this processor
            yield Measurement(name, name == default, (str(error).splitlines() or [type(error).__name__])[0])
    if not names:
        yield from _compare_tiers(bundle, texts, expected, seconds)


def _compare_tiers(
    bundle: Bundle, texts: Sequence[NewsItem], expected: FloatArray, seconds: float
) -> Iterator[Measurement]:
    """Measure the companion alone, and the default runtime with the cascade, if the bundle has them."""
    companion = bundle.contract.companion
    if companion is None:
        return
    runtime = load_runtime(bundle, AUTO, cpu.cores())
    size_bytes = (bundle.path / COMPANION_FILE).stat().st_size

    def predict_alone(items: Sequence[NewsItem]) -> FloatArray:
        return runtime.predict_prepared([runtime.prepare(item) for item in items], threshold=0.0)

    yield _measure(COMPANION, False, size_bytes, predict_alone, texts, expected, seconds)
    if companion.threshold is not None:
        graph = files_of(resolve_runtime(bundle))[0]
        size_bytes += (bundle.path / graph).stat().st_size
        yield _measure("cascade", False, size_bytes, runtime.predict, texts, expected, seconds)


def _measure(
    name: str,
    chosen: bool,
    size_bytes: int,
    predict: Callable[[Sequence[NewsItem]], FloatArray],
    texts: Sequence[NewsItem],
    expected: FloatArray,
    seconds: float,
) -> Measurement:
    batched = predict(texts)
    # Warm-up before timing: a runtime may compile for an unseen input, such as another length.
    single_results = [predict([text]) for text in texts[:_TIMED_TEXTS]]
    times = _measure_times(lambda number: predict([texts[number % len(single_results)]]), seconds, len(single_results))
    rounds = _measure_times(lambda _: predict(texts), seconds, _MIN_ROUNDS)
    single = np.concatenate(single_results)
    return Measurement(
        name,
        chosen,
        size_bytes=size_bytes,
        texts_per_s=len(texts) / statistics.median(rounds),
        p50_s=statistics.median(times),
        p99_s=float(np.percentile(times, 99)),
        agreement=float((batched.argmax(axis=1) == expected.argmax(axis=1)).mean()),
        max_difference=float(np.abs(batched - expected).max()),
        batch_difference=float(np.abs(single - batched[: len(single)]).max()),
    )


def _measure_times(call: Callable[[int], object], seconds: float, least: int) -> list[float]:
    """Return the latency of every call, for some seconds and for a minimum number of calls."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        started = time.perf_counter()
        call(len(times))
        times.append(time.perf_counter() - started)
    return times
