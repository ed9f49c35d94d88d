"""All runtimes of a bundle side by side on this machine: how fast each is, and how it agrees with the others."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from newsbert.bundle.bundle import RUNTIME_FILES, Bundle, files_of
from newsbert.core import cpu
from newsbert.core.types import FloatArray
from newsbert.errors import NewsbertError
from newsbert.inference.runtime import Runtime, load_runtime, resolve_runtime

SECONDS = 2.0
"""For which each runtime is measured, in each of the two ways."""

_LEAST_ROUNDS = 3
_TIMED_TEXTS = 30
"""Texts that are classified alone."""


@dataclass(frozen=True)
class Measurement:
    """A runtime on this machine.

    Attributes:
        name: Its name.
        chosen: Whether it is what answers where none is named.
        problem: Why it could not be measured; then nothing else is known.
        size_bytes: Of the graph or the weights that it reads.
        texts_per_s: Of many texts at once; median of several rounds.
        p50_s: Median time of one text by itself.
        p99_s: Time that one in a hundred texts takes longer than.
        agreement: Share of the texts that get the label that the reference gives them.
        max_difference: Largest difference in probability to the reference.
        batch_difference: Largest difference in probability between a text alone and the same among the others.
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


def reference(bundle: Bundle, texts: Sequence[str]) -> tuple[str, FloatArray]:
    """What the others are compared with: PyTorch where it is installed, else the fp32 graph; its name and answers."""
    try:
        return "torch", load_runtime(bundle, "torch").predict(texts)
    except ModuleNotFoundError:
        return "onnxruntime", load_runtime(bundle, "onnxruntime").predict(texts)


def compare(
    bundle: Bundle, texts: Sequence[str], expected: FloatArray, names: Sequence[str] = (), seconds: float = SECONDS
) -> Iterator[Measurement]:
    """Measure runtimes one after the other, each with all cores that this process may use.

    Args:
        bundle: A verified bundle.
        texts: What is classified.
        expected: The reference's probabilities: `(texts, num_labels)`.
        names: Runtimes; all if none is given.
        seconds: How long, for each of the two ways: one text at a time, and all at once.

    Raises:
        UsageError: If there is no such runtime.
    """
    choice = resolve_runtime(bundle)
    for name in names or RUNTIME_FILES:
        file = bundle.path / files_of(name)[0]
        try:
            runtime = load_runtime(bundle, name, cpu.cores())
            yield _measure(name, name == choice, file.stat().st_size, runtime, texts, expected, seconds)
        except (NewsbertError, ModuleNotFoundError) as error:
            yield Measurement(name, name == choice, getattr(error, "message", str(error)))
        except RuntimeError as error:  # torch has no compiler, or OpenVINO does not know this processor
            yield Measurement(name, name == choice, (str(error).splitlines() or [type(error).__name__])[0])


def _measure(
    name: str,
    chosen: bool,
    size_bytes: int,
    runtime: Runtime,
    texts: Sequence[str],
    expected: FloatArray,
    seconds: float,
) -> Measurement:
    together = runtime.predict(texts)
    # Once before it is timed: a runtime may compile what it has not met, such as another length.
    alone = [runtime.predict([text]) for text in texts[:_TIMED_TEXTS]]
    times = _times(lambda number: runtime.predict([texts[number % len(alone)]]), seconds, len(alone))
    rounds = _times(lambda _: runtime.predict(texts), seconds, _LEAST_ROUNDS)
    first = np.concatenate(alone)
    return Measurement(
        name,
        chosen,
        size_bytes=size_bytes,
        texts_per_s=len(texts) / statistics.median(rounds),
        p50_s=statistics.median(times),
        p99_s=float(np.percentile(times, 99)),
        agreement=float((together.argmax(axis=1) == expected.argmax(axis=1)).mean()),
        max_difference=float(np.abs(together - expected).max()),
        batch_difference=float(np.abs(first - together[: len(first)]).max()),
    )


def _times(call: Callable[[int], object], seconds: float, least: int) -> list[float]:
    """How long each call took, for some seconds and so many calls at least."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        started = time.perf_counter()
        call(len(times))
        times.append(time.perf_counter() - started)
    return times
