"""Whether a server answers as the model did in training: its answers to the golden texts of a contract."""

from collections.abc import Sequence

from newsbert.bundle import FP32_TOLERANCE, Contract
from newsbert.errors import ModelError
from newsbert.model import Prediction

OTHERWISE = "is answered otherwise than in training"
"""Stands in the message of every disagreement: what reads the log of an image's build looks for it."""

_ROUNDING = 1e-6  # answers have six decimals
_HINT = "pip install -r requirements.txt, the bundle's, where it is served"


def tolerance(contract: Contract, runtime: str) -> float:
    """How far a runtime's probabilities may be from those that PyTorch gave."""
    return next((graph.tolerance for graph in contract.graphs.values() if graph.runtime == runtime), FP32_TOLERANCE)


def check(contract: Contract, runtime: str, answers: Sequence[Prediction]) -> float:
    """Return the largest difference in probability of a runtime's answers to the golden texts, in their order.

    Raises:
        ModelError: If it is too large, or a label is another one; the message names the text.
    """
    allowed, largest = tolerance(contract, runtime), 0.0
    for golden, answer in zip(contract.golden, answers, strict=True):
        expected = Prediction.of(contract.labels, golden.probabilities)
        said = f"{golden.item!r:.200} {OTHERWISE}"
        if answer.label != expected.label:
            raise ModelError(f"{said}: {answer.label!r} instead of {expected.label!r}", _HINT)
        for label, probability in expected.probabilities.items():
            off = abs(answer.probabilities.get(label, 0.0) - probability)
            if not off <= allowed + _ROUNDING:  # NaN is not
                raise ModelError(f"{said}: {label!r} is {off:.4f} off in probability, {allowed:g} allowed", _HINT)
            largest = max(largest, off)
    return largest
