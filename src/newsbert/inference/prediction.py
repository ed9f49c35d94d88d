"""The answer for one text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from newsbert.evaluation.review import SCORE_DECIMALS, needs_review

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Prediction:
    """The answer for one text.

    Attributes:
        label: The label with the highest probability.
        score: That probability.
        probabilities: All of them by label, in label order.
        review: Whether a person should see it: the score is below the threshold.
    """

    label: str
    score: float
    probabilities: dict[str, float]
    review: bool = False

    @classmethod
    def of(cls, labels: Sequence[str], probabilities: Sequence[float], review_below: float = 0.0) -> "Prediction":
        """Make the answer from probabilities in label order, and the threshold."""
        by_label = dict(zip(labels, map(float, probabilities), strict=True))
        best = max(by_label, key=by_label.__getitem__)
        return cls(best, by_label[best], by_label, bool(needs_review(by_label[best], review_below)))

    @classmethod
    def from_dict(cls, answer: Mapping[str, Any]) -> "Prediction":
        """Read an answer that came over HTTP; a server older than reviews says nothing of them.

        Raises:
            KeyError: If it lacks something.
            TypeError: If it has another form, `review` included.
            ValueError: If its score is no number.
        """
        label, score, probabilities = str(answer["label"]), float(answer["score"]), dict(answer["probabilities"])
        review = answer.get("review", False)
        if not isinstance(review, bool):
            raise TypeError(f"review is {review!r}")
        return cls(label, score, probabilities, review)

    def to_dict(self) -> dict[str, object]:
        """The answer as it goes over HTTP and into files, with six decimals."""
        rounded = {label: round(probability, SCORE_DECIMALS) for label, probability in self.probabilities.items()}
        score = round(self.score, SCORE_DECIMALS)
        return {"label": self.label, "score": score, "review": self.review, "probabilities": rounded}
