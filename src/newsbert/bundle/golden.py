"""Golden texts: every bundle stores the answers to them, so that an environment can prove that it gives the same ones.

The texts were written for newsbert and are never rows of a user's data. They cover the cases in which preparation and
tokenization must agree: short and long texts, title with text, HTML, AG News's broken entities, other scripts, emoji,
odd white space, an unknown word.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from newsbert.bundle.bundle import BF16_TOLERANCE, FP32_TOLERANCE, files_of
from newsbert.bundle.contract import Contract
from newsbert.data.text import NewsItem
from newsbert.errors import ModelError

_LONG_SENTENCE = (
    "Negotiators from eleven coastal states returned to the table after a night of storms had kept their aircraft on "
    "the ground, and began with the question that had divided them in spring: who pays when a harbour closes. "
)

GOLDEN_ITEMS: tuple[NewsItem, ...] = (
    "Stocks fall as oil rises",
    "Champions held to a goalless draw",
    "New chip doubles the battery life of phones",
    "Ministers sign border treaty",
    {"title": "Central bank leaves rates alone", "text": "Prices rose less than expected in the third quarter."},
    {"title": "Probe reaches ring of ice", "text": ""},
    {"title": "", "text": "The keeper saved two penalties and the cup stayed north."},
    "It #39;s a record: shares of AT amp;T rose to \\$41,\\said  quot;nobody quot; at all",
    "&lt;b&gt;Update&lt;/b&gt; <a href='x'>Parliament</a> votes on Caf&eacute; &amp; bar law&#8212;again",
    "Élections à Genève : São Paulo, Kraków, Ærø and Łódź send mayors",
    "東京株式市場は小幅に反発した",
    "فاز الفريق بثلاثة أهداف 🏆⚽ نظيفة",
    "tabs\tand\nlines \u00a0 and \u200bzero width",
    "qqzzxw",
    _LONG_SENTENCE * 12,
)


class Answer(Protocol):
    """A label, and the probability of every label."""

    @property
    def label(self) -> str:
        """Return the most probable label."""
        ...

    @property
    def probabilities(self) -> Mapping[str, float]:
        """Return probabilities by label."""
        ...


MISMATCH = "is answered otherwise than in training"
"""Phrase in every mismatch message. The code that reads the log of an image build searches for it."""

_ROUNDING = 1e-6  # answers have six decimals

_HINT = "serve it with the package versions that it was trained with: newsbert build-image MODEL --bundle-versions"


def tolerance(contract: Contract, runtime: str) -> float:
    """Return the accepted difference between a runtime's probabilities and the expected ones for the golden texts.

    Raises:
        UsageError: If there is no such runtime.
    """
    graph = contract.graphs.get(files_of(runtime)[0])
    allowed = graph.tolerance if graph else FP32_TOLERANCE
    return max(allowed, BF16_TOLERANCE) if runtime.endswith("-bf16") else allowed


def _get_expected(contract: Contract, runtime: str) -> list[list[dict[str, float]]]:
    """Return the probabilities of which a runtime must give the golden texts one, by text.

    They are PyTorch's, or those of a quantized graph when it was made. If a companion is sure of a text, they may also
    be the companion's: a cascade can be on or off. They come from the contract alone and not from inference code, so
    that a bug in that code cannot hide itself.
    """
    graph = contract.graphs.get(files_of(runtime)[0])
    golden = (graph.golden if graph else None) or [text.probabilities for text in contract.golden]
    expected = [[probabilities] for probabilities in golden]
    companion = contract.companion
    if companion is not None and companion.threshold is not None:
        for choices, probabilities in zip(expected, companion.golden, strict=True):
            if max(probabilities) >= companion.threshold - _ROUNDING:
                choices.append(probabilities)
    return [[dict(zip(contract.labels, choice, strict=True)) for choice in choices] for choices in expected]


def check_answers(contract: Contract, runtime: str, answers: Sequence[Answer]) -> float:
    """Return the largest difference in probability between a runtime's answers and the expected ones.

    The answers are in the order of the golden texts.

    Raises:
        ModelError: If the difference is too large; the message names the text.
    """
    allowed, largest = tolerance(contract, runtime), 0.0
    for golden, choices, answer in zip(contract.golden, _get_expected(contract, runtime), answers, strict=True):
        differences, expected = min(
            ((_compare(answer, choice), choice) for choice in choices), key=lambda compared: max(compared[0])
        )
        if not max(differences) <= allowed + _ROUNDING or any(map(math.isnan, differences)):
            best = max(expected, key=expected.__getitem__)
            label = f"{answer.label!r} instead of {best!r}, " if answer.label != best else ""
            problem = f"{golden.item!r:.200} {MISMATCH}"
            raise ModelError(f"{problem}: {label}{max(differences):.4f} off in probability, {allowed:g} allowed", _HINT)
        largest = max(largest, *differences)
    return largest


def check_companion(contract: Contract, probabilities: Sequence[Sequence[float]]) -> None:
    """Check a companion's probabilities of the golden texts, which are the same everywhere.

    Raises:
        ModelError: If they differ from those in the contract.
    """
    expected = contract.companion.golden if contract.companion else []
    for golden, before, now in zip(contract.golden, expected, probabilities, strict=True):
        if not max(abs(first - second) for first, second in zip(before, now, strict=True)) <= _ROUNDING:
            raise ModelError(f"{golden.item!r:.200} {MISMATCH} by the companion: {now} instead of {before}", _HINT)


def _compare(answer: Answer, expected: Mapping[str, float]) -> list[float]:
    return [abs(answer.probabilities.get(label, 0.0) - value) for label, value in expected.items()]
