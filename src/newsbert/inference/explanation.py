"""Attribution of a label's probability to the words of a text.

The attributions of a text's words sum to its label's probability, minus that of a text without words. There are two
methods:

- Integrated gradients (Sundararajan, Taly and Yan, 2017, https://arxiv.org/abs/1703.01365) for the PyTorch runtime: the
  gradients of the probability on the path from a baseline without words, all padding, to the text.
- Occlusion for any other runtime: words are removed in a random order and in its reverse. The attribution of a word is
  the probability lost with it, averaged over such orders (Castro, Gómez and Tejada, 2009, sampled Shapley values).
  Removing a single word from the whole text would show little if other words have the same meaning.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from newsbert.core.types import FloatArray
from newsbert.evaluation.review_threshold import SCORE_DECIMALS
from newsbert.inference.prediction import Prediction
from newsbert.inference.runtime import InferenceTimings, TokenAttributions

EVALUATIONS = 512
"""Approximate number of texts with words removed that the model reads for an explanation by sampled Shapley values."""

TOLERANCE = 0.01
"""Maximum gap between the attributions' sum and the explained difference, on the runtimes that compute in fp32."""

SHAPLEY_SAMPLING, INTEGRATED_GRADIENTS = "sampled Shapley values", "integrated gradients"
Attributions = NDArray[np.float64]
_WORD = re.compile(r"\S+")
_STEP_CHARACTERS = 512
"""Size of the texts that are read in one step: a prediction waits for one step at most."""


class ExplainableRuntime(Protocol):
    """Interface of a runtime whose predictions can be explained; see `Runtime`."""

    def predict_prepared(
        self, sequences: Sequence[str], measured: InferenceTimings | None = None, threshold: float | None = None
    ) -> FloatArray:
        """Return the probabilities of prepared sequences."""
        ...

    def choose_tier(self, sequence: str) -> float:
        """Return the threshold at which the tier that answers a prepared sequence answers all others, too."""
        ...

    def reads(self, sequence: str) -> int:
        """Return the number of characters that the model reads."""
        ...

    def integrated_gradients(self, sequence: str, label: int, tolerance: float) -> TokenAttributions | None:
        """Return the contributions of the tokens, or `None` without gradients."""
        ...


@dataclass(frozen=True)
class WordAttribution:
    """A word of the text that the model read.

    Attributes:
        text: The word, including adjacent punctuation.
        start: Start of the word in the explanation's text, in characters.
        end: End of the word.
        attribution: Contribution to the probability of the label; negative if the word lowers it.
    """

    text: str
    start: int
    end: int
    attribution: float


@dataclass(frozen=True)
class Explanation:
    """Prediction with the attributions of the words.

    Attributes:
        prediction: The prediction.
        label: Label whose probability is explained.
        method: `integrated gradients` or `sampled Shapley values`.
        text: Text as the model reads it: cleaned, title and text joined.
        words: Words that the model reads, in order. Of a long text, it reads the beginning.
        gap: Probability of the label, minus that of a text without words, minus the sum of the attributions.
    """

    prediction: Prediction
    label: str
    method: str
    text: str
    words: tuple[WordAttribution, ...]
    gap: float

    @classmethod
    def from_dict(cls, answer: Mapping[str, Any]) -> "Explanation":
        """Read an explanation from an HTTP response.

        Raises:
            KeyError: If a value is missing.
            TypeError: If the response has another form.
            ValueError: If a number is not valid.
        """
        explanation = answer["explanation"]
        words = tuple(
            WordAttribution(str(word["text"]), int(word["start"]), int(word["end"]), float(word["attribution"]))
            for word in explanation["words"]
        )
        prediction = Prediction.from_dict(answer)
        label, method, text = (str(explanation[name]) for name in ("label", "method", "text"))
        return cls(prediction, label, method, text, words, float(explanation["gap"]))

    def to_dict(self, *, tier: bool = False) -> dict[str, object]:
        """Return the prediction with its explanation as it is sent over HTTP, with six decimals.

        Args:
            tier: Include the tier.
        """
        words = [
            {"text": word.text, "start": word.start, "end": word.end, "attribution": _round(word.attribution)}
            for word in self.words
        ]
        explanation = {
            "label": self.label,
            "method": self.method,
            "text": self.text,
            "words": words,
            "gap": _round(self.gap),
        }
        return {**self.prediction.to_dict(tier=tier), "explanation": explanation}


def explain(
    runtime: ExplainableRuntime,
    text: str,
    prediction: Prediction,
    label: str | None = None,
    step: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> Explanation:
    """Attribute the probability of a label to the words of a text.

    Args:
        runtime: Runtime that computes the probabilities.
        text: Text as `runtime.prepare` returns it.
        prediction: Prediction for the text.
        label: Label whose probability is explained; defaults to the predicted one.
        step: Entered for every step of the computation, so that predictions can run in between; not for gradients.

    Raises:
        ValueError: If there is no such label.
    """
    labels = list(prediction.probabilities)
    label = prediction.label if label is None else label
    if label not in labels:
        raise ValueError(f"there is no label {label!r}: {', '.join(labels)}")
    label_index = labels.index(label)
    text_read = text[: runtime.reads(text)]
    spans = [match.span() for match in _WORD.finditer(text_read)]
    gradients = runtime.integrated_gradients(text, label_index, TOLERANCE)
    if gradients is None:
        method, (attributions, gap) = (
            SHAPLEY_SAMPLING,
            _occlude(runtime, text, [text_read[start:end] for start, end in spans], label_index, step),
        )
    else:
        method, gap = INTEGRATED_GRADIENTS, gradients.gap
        attributions = _sum_by_word(spans, gradients.spans, gradients.attributions)
    words = tuple(
        WordAttribution(text_read[start:end], start, end, float(attribution))
        for (start, end), attribution in zip(spans, attributions, strict=True)
    )
    return Explanation(prediction, label, method, text, words, gap)


def _sum_by_word(
    words: Sequence[tuple[int, int]], tokens: Sequence[tuple[int, int]], attributions: FloatArray
) -> Attributions:
    """Sum the attributions of the tokens of every word.

    A token without characters, such as a special token, belongs to no word.
    """
    starts = np.array([start for start, _ in words])
    sums = np.zeros(len(words))
    for (start, end), attribution in zip(tokens, attributions, strict=True):
        if end > start:
            sums[np.searchsorted(starts, start, side="right") - 1] += attribution
    return sums


def _occlude(
    runtime: ExplainableRuntime,
    text: str,
    words: Sequence[str],
    label: int,
    step: Callable[[], AbstractContextManager[None]],
) -> tuple[Attributions, float]:
    """Return the words' contributions, averaged over the orders of removal, and the gap of their sum."""
    if not words:  # the tokenizer may return no tokens for a text that is not empty
        return np.zeros(0), 0.0
    threshold = runtime.choose_tier(text)  # the tier that answered is explained, and not another for fewer words
    # A fixed seed: the same text always gets the same explanation.
    rng = np.random.default_rng(0)
    orders: list[list[int]] = []
    for _ in range(max(1, EVALUATIONS // (2 * len(words)))):
        order = rng.permutation(len(words)).tolist()
        orders += [order, order[::-1]]
    subsets: dict[frozenset[int], int] = {}
    for order in orders:
        for removed in range(len(order) + 1):
            subsets.setdefault(frozenset(order[removed:]), len(subsets))
    texts = [" ".join(words[index] for index in sorted(subset)) for subset in subsets]
    probabilities = np.zeros(len(texts))
    for rows in _split_steps(texts):
        with step():
            probabilities[rows] = runtime.predict_prepared([texts[row] for row in rows], threshold=threshold)[:, label]
    attributions = np.zeros(len(words))
    for order in orders:
        for removed, word in enumerate(order):
            with_it, without = subsets[frozenset(order[removed:])], subsets[frozenset(order[removed + 1 :])]
            attributions[word] += (probabilities[with_it] - probabilities[without]) / len(orders)
    all_words, no_words = subsets[frozenset(range(len(words)))], subsets[frozenset()]
    return attributions, float(probabilities[all_words] - probabilities[no_words] - attributions.sum())


def _split_steps(texts: Sequence[str]) -> Iterator[list[int]]:
    """Yield small batches of texts of about the same length, as indices."""
    rows: list[int] = []
    for row in sorted(range(len(texts)), key=lambda index: len(texts[index])):
        if rows and (len(rows) + 1) * len(texts[row]) > _STEP_CHARACTERS:
            yield rows
            rows = []
        rows.append(row)
    yield rows


def _round(value: float) -> float:
    return round(value, SCORE_DECIMALS) + 0.0  # no negative zero
