"""Prediction for one text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from newsbert.core.types import FloatArray
from newsbert.evaluation.review_threshold import SCORE_DECIMALS, needs_review

COMPANION, MODEL = "companion", "model"
"""Tiers: the companion alone, and the model, whose answer is mixed with the companion's if there is one."""


@dataclass(frozen=True)
class Prediction:
    """Prediction for one text.

    Attributes:
        label: Label with the highest probability.
        score: Probability of that label.
        probabilities: All probabilities by label, in label order.
        review: Whether a person should review the prediction: the score is below the threshold.
        tier: What answered, `companion` or `model`; empty if that is not known.
    """

    label: str
    score: float
    probabilities: dict[str, float]
    review: bool = False
    tier: str = ""

    @classmethod
    def of(
        cls, labels: Sequence[str], probabilities: Sequence[float], review_threshold: float = 0.0, tier: str = ""
    ) -> "Prediction":
        """Create a prediction from probabilities in label order, the review threshold and the tier."""
        by_label = dict(zip(labels, map(float, probabilities), strict=True))
        best = max(by_label, key=by_label.__getitem__)
        return cls(best, by_label[best], by_label, bool(needs_review(by_label[best], review_threshold)), tier)

    @classmethod
    def list_of(
        cls, labels: Sequence[str], probabilities: FloatArray, review_threshold: float, by_companion: Sequence[bool]
    ) -> "list[Prediction]":
        """Create the predictions of several texts, as `of` does.

        Args:
            labels: The labels.
            probabilities: `(texts, num_labels)`, in label order.
            review_threshold: Score below which a person should review a prediction.
            by_companion: For every text whether the companion answered it alone.
        """
        best = probabilities.argmax(axis=1).tolist()
        reviews = needs_review(probabilities.max(axis=1, initial=0), review_threshold).tolist()
        return [
            cls(labels[label], row[label], dict(zip(labels, row, strict=True)), review, COMPANION if alone else MODEL)
            for row, label, review, alone in zip(probabilities.tolist(), best, reviews, by_companion, strict=True)
        ]

    @classmethod
    def from_dict(cls, answer: Mapping[str, Any]) -> "Prediction":
        """Read a prediction from an HTTP response; a server older than reviews sends no `review`.

        Raises:
            KeyError: If a value is missing.
            TypeError: If the response has another form, `review` included.
            ValueError: If the score is not a number.
        """
        label, score, probabilities = str(answer["label"]), float(answer["score"]), dict(answer["probabilities"])
        review = answer.get("review", False)
        if not isinstance(review, bool):
            raise TypeError(f"review is {review!r}")
        return cls(label, score, probabilities, review, str(answer.get("tier", "")))

    def to_dict(self, *, tier: bool = False) -> dict[str, object]:
        """Return the prediction as it is sent over HTTP and written to files, with six decimals.

        Args:
            tier: Include the tier.
        """
        rounded = {label: round(probability, SCORE_DECIMALS) for label, probability in self.probabilities.items()}
        score = round(self.score, SCORE_DECIMALS)
        answer = {"label": self.label, "score": score, "review": self.review, "probabilities": rounded}
        return answer | {"tier": self.tier} if tier else answer
