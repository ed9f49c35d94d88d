"""Whether a server answers as the model did in training: its answers to the golden texts of a contract."""

import math
from collections.abc import Sequence

from newsbert.bundle.bundle import BF16_TOLERANCE, FP32_TOLERANCE, Contract, files_of
from newsbert.errors import ModelError
from newsbert.inference.model import Prediction

OTHERWISE = "is answered otherwise than in training"
"""Stands in the message of every disagreement: what reads the log of an image's build looks for it."""

_ROUNDING = 1e-6  # answers have six decimals
_HINT = "serve it with the package versions that it was trained with: newsbert build-image MODEL --bundle-versions"


def tolerance(contract: Contract, runtime: str) -> float:
    """How far a runtime's probabilities may be from those that are expected of it for the golden texts.

    Raises:
        UsageError: If there is no such runtime.
    """
    graph = contract.graphs.get(files_of(runtime)[0])
    allowed = graph.tolerance if graph else FP32_TOLERANCE
    return max(allowed, BF16_TOLERANCE) if runtime.endswith("-bf16") else allowed


def _expected(contract: Contract, runtime: str) -> list[dict[str, float]]:
    """Probabilities that a runtime is to give the golden texts: as PyTorch did, or a quantized graph when it was made.

    They come from the contract alone, by nothing that makes answers too: what is wrong there must not be here as well.
    """
    graph = contract.graphs.get(files_of(runtime)[0])
    golden = (graph.golden if graph else None) or [each.probabilities for each in contract.golden]
    return [dict(zip(contract.labels, probabilities, strict=True)) for probabilities in golden]


def check(contract: Contract, runtime: str, answers: Sequence[Prediction]) -> float:
    """Return the largest difference in probability of a runtime's answers to the golden texts, in their order.

    Raises:
        ModelError: If it is too large; the message names the text.
    """
    allowed, largest = tolerance(contract, runtime), 0.0
    for golden, right, answer in zip(contract.golden, _expected(contract, runtime), answers, strict=True):
        off = [abs(answer.probabilities.get(label, 0.0) - value) for label, value in right.items()]
        if not max(off) <= allowed + _ROUNDING or any(map(math.isnan, off)):
            best = max(right, key=right.__getitem__)
            label = f"{answer.label!r} instead of {best!r}, " if answer.label != best else ""
            said = f"{golden.item!r:.200} {OTHERWISE}"
            raise ModelError(f"{said}: {label}{max(off):.4f} off in probability, {allowed:g} allowed", _HINT)
        largest = max(largest, *off)
    return largest
