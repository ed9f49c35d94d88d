"""Which words an answer rests on: what each adds to the probability of a label.

The attributions of a text's words sum to its label's probability, less that of a text without any word. Two ways:

- Integrated gradients (Sundararajan, Taly and Yan, 2017, https://arxiv.org/abs/1703.01365) where PyTorch answers: the
  gradients of the probability on the way from no words, all of them padding, to the text.
- Occlusion on any other runtime: words are taken away in a random order and in its reverse, and each is given what the
  probability loses with it, averaged over such orders (Castro, Gómez and Tejada, 2009, sampled Shapley values). One
  word by itself, left out of the whole text, would tell little where others say the same.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newsbert.core.types import FloatArray
from newsbert.evaluation.review import SCORE_DECIMALS
from newsbert.inference.prediction import Prediction
from newsbert.inference.runtime import Runtime

EVALUATIONS = 512
"""Texts without some of their words that the model reads for an explanation by occlusion, about."""

TOLERANCE = 0.01
"""What the attributions may lack of the difference they explain, on the runtimes that compute in fp32."""

OCCLUSION, INTEGRATED_GRADIENTS = "occlusion", "integrated gradients"
Attributions = NDArray[np.float64]
_WORD = re.compile(r"\S+")
_STEP_CHARACTERS = 512
"""Of the texts that are read in one step: an answer waits for one step at most."""


@dataclass(frozen=True)
class WordAttribution:
    """A word of the text that the model read.

    Attributes:
        text: The word, punctuation at it included.
        start: Where it begins in the explanation's text, in characters.
        end: Where it ends.
        attribution: What it adds to the probability of the label; negative where it speaks against it.
    """

    text: str
    start: int
    end: int
    attribution: float


@dataclass(frozen=True)
class Explanation:
    """What an answer rests on.

    Attributes:
        prediction: The answer.
        label: The label whose probability is explained.
        method: `integrated gradients` or `occlusion`.
        text: The text as the model reads it: cleaned, title and text joined.
        words: Its words in their order, those that the model reads: it reads a long text's beginning.
        gap: The probability of the label, less that of no words and the sum of the attributions: what they lack.
    """

    prediction: Prediction
    label: str
    method: str
    text: str
    words: tuple[WordAttribution, ...]
    gap: float

    @classmethod
    def from_dict(cls, answer: Mapping[str, Any]) -> "Explanation":
        """Read an answer that came over HTTP.

        Raises:
            KeyError: If it lacks something.
            TypeError: If it has another form.
            ValueError: If a number is none.
        """
        found = answer["explanation"]
        words = tuple(
            WordAttribution(str(each["text"]), int(each["start"]), int(each["end"]), float(each["attribution"]))
            for each in found["words"]
        )
        prediction = Prediction.from_dict(answer)
        label, method, text = (str(found[name]) for name in ("label", "method", "text"))
        return cls(prediction, label, method, text, words, float(found["gap"]))

    def to_dict(self) -> dict[str, object]:
        """The answer with its explanation, as it goes over HTTP, with six decimals."""
        words = [
            {"text": each.text, "start": each.start, "end": each.end, "attribution": _rounded(each.attribution)}
            for each in self.words
        ]
        explanation = {
            "label": self.label,
            "method": self.method,
            "text": self.text,
            "words": words,
            "gap": _rounded(self.gap),
        }
        return {**self.prediction.to_dict(), "explanation": explanation}


def explain(
    runtime: Runtime,
    text: str,
    prediction: Prediction,
    label: str | None = None,
    step: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> Explanation:
    """Find which words of a text the probability of a label rests on.

    Args:
        runtime: What answers.
        text: What `runtime.prepare` gave.
        prediction: The answer.
        label: Whose probability is explained; that of the predicted one, if not given.
        step: Entered for every step of the computation, so that answers may pass between; not for gradients.

    Raises:
        ValueError: If there is no such label.
    """
    labels = list(prediction.probabilities)
    label = prediction.label if label is None else label
    if label not in labels:
        raise ValueError(f"there is no label {label!r}: {', '.join(labels)}")
    explained = labels.index(label)
    read = text[: runtime.reads(text)]
    spans = [match.span() for match in _WORD.finditer(read)]
    integrated = runtime.integrated_gradients(text, explained, TOLERANCE)
    if integrated is None:
        method, (attributions, gap) = OCCLUSION, _occluded(runtime, [read[a:b] for a, b in spans], explained, step)
    else:
        method, gap = INTEGRATED_GRADIENTS, integrated.gap
        attributions = _of_words(spans, integrated.spans, integrated.attributions)
    words = tuple(
        WordAttribution(read[start:end], start, end, float(attribution))
        for (start, end), attribution in zip(spans, attributions, strict=True)
    )
    return Explanation(prediction, label, method, text, words, gap)


def _of_words(
    words: Sequence[tuple[int, int]], tokens: Sequence[tuple[int, int]], attributions: FloatArray
) -> Attributions:
    """Sum what tokens add over the words they are in; a token of no characters, as of the frame, is in none."""
    starts = np.array([start for start, _ in words])
    sums = np.zeros(len(words))
    for (start, end), attribution in zip(tokens, attributions, strict=True):
        if end > start:
            sums[np.searchsorted(starts, start, side="right") - 1] += attribution
    return sums


def _occluded(
    runtime: Runtime, words: Sequence[str], label: int, step: Callable[[], AbstractContextManager[None]]
) -> tuple[Attributions, float]:
    """What each word adds, averaged over orders to take them away in, and what their sum lacks."""
    if not words:  # the tokenizer may read nothing of a text that is not empty
        return np.zeros(0), 0.0
    # The same text is explained in the same way again.
    draw = np.random.default_rng(0)
    orders: list[list[int]] = []
    for _ in range(max(1, EVALUATIONS // (2 * len(words)))):
        order = draw.permutation(len(words)).tolist()
        orders += [order, order[::-1]]
    kept: dict[frozenset[int], int] = {}
    for order in orders:
        for taken in range(len(order) + 1):
            kept.setdefault(frozenset(order[taken:]), len(kept))
    texts = [" ".join(words[index] for index in sorted(each)) for each in kept]
    probabilities = np.zeros(len(texts))
    for rows in _steps(texts):
        with step():
            probabilities[rows] = runtime.predict_prepared([texts[row] for row in rows])[:, label]
    attributions = np.zeros(len(words))
    for order in orders:
        for taken, word in enumerate(order):
            with_it, without = kept[frozenset(order[taken:])], kept[frozenset(order[taken + 1 :])]
            attributions[word] += (probabilities[with_it] - probabilities[without]) / len(orders)
    everything, nothing = kept[frozenset(range(len(words)))], kept[frozenset()]
    return attributions, float(probabilities[everything] - probabilities[nothing] - attributions.sum())


def _steps(texts: Sequence[str]) -> Iterator[list[int]]:
    """Cut texts into small batches of about the same length: their indices."""
    rows: list[int] = []
    for row in sorted(range(len(texts)), key=lambda index: len(texts[index])):
        if rows and (len(rows) + 1) * len(texts[row]) > _STEP_CHARACTERS:
            yield rows
            rows = []
        rows.append(row)
    yield rows


def _rounded(value: float) -> float:
    return round(value, SCORE_DECIMALS) + 0.0  # no minus before a zero
