"""Texts whose answers every bundle remembers, so that any environment can prove that it gives the same ones.

Written for newsbert; never rows of a user's data. They cover what preparation and tokenization must agree on: short
and long, title with text, HTML, AG News's broken entities, other scripts, emoji, odd white space, an unknown word.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from newsbert.bundle.bundle import BF16_TOLERANCE, FP32_TOLERANCE, files_of
from newsbert.bundle.contract import Contract
from newsbert.data.text import NewsItem
from newsbert.errors import ModelError

_LONG = (
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
    _LONG * 12,
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


def check_answers(contract: Contract, runtime: str, answers: Sequence[Answer]) -> float:
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
            said = f"{golden.item!r:.200} {MISMATCH}"
            raise ModelError(f"{said}: {label}{max(off):.4f} off in probability, {allowed:g} allowed", _HINT)
        largest = max(largest, *off)
    return largest
