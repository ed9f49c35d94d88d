"""A trained model in this process: texts in, labels with probabilities out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from newsbert import runtimes
from newsbert.bundle import AUTO, Bundle
from newsbert.evaluation import FloatArray
from newsbert.text import NewsItem


@dataclass(frozen=True)
class Prediction:
    """The answer for one text.

    Attributes:
        label: The label with the highest probability.
        score: That probability.
        probabilities: All of them by label, in label order.
    """

    label: str
    score: float
    probabilities: dict[str, float]

    @classmethod
    def of(cls, labels: Sequence[str], probabilities: Sequence[float]) -> "Prediction":
        """Make the answer from probabilities in label order."""
        by_label = dict(zip(labels, map(float, probabilities), strict=True))
        best = max(by_label, key=by_label.__getitem__)
        return cls(best, by_label[best], by_label)

    @classmethod
    def from_dict(cls, answer: Mapping[str, Any]) -> "Prediction":
        """Read an answer that came over HTTP.

        Raises:
            KeyError: If it lacks something.
            TypeError: If it has another form.
            ValueError: If its score is no number.
        """
        return cls(str(answer["label"]), float(answer["score"]), dict(answer["probabilities"]))

    def to_dict(self) -> dict[str, object]:
        """The answer as it goes over HTTP and into files, with six decimals."""
        rounded = {label: round(probability, 6) for label, probability in self.probabilities.items()}
        return {"label": self.label, "score": round(self.score, 6), "probabilities": rounded}


class Model:
    """A bundle loaded into a runtime.

    Args:
        bundle: The bundle.
        name: What to call it, such as `BertModel/2`.
        runtime: Name of the runtime, or `auto`.
        threads: Cores to use; as many as this process may, if not given.
    """

    def __init__(self, bundle: Bundle, name: str = "", runtime: str = AUTO, threads: int | None = None) -> None:
        self.bundle = bundle
        self.name = name or bundle.path.name
        self.runtime = runtimes.chosen(bundle, runtime)
        self._runtime = runtimes.load(bundle, self.runtime, threads)

    @classmethod
    def from_directory(cls, path: Path, name: str = "", runtime: str = AUTO) -> "Model":
        """Load the bundle in `path`, its files verified.

        Raises:
            ModelError: If it is no bundle, or was altered after training.
        """
        bundle = Bundle.read(path)
        bundle.verify()
        return cls(bundle, name, runtime)

    def predict(self, items: Sequence[NewsItem]) -> list[Prediction]:
        """Classify texts, or objects with `title` and `text`, in their order.

        Raises:
            ValueError: If an item is no text or empty.
        """
        return [Prediction.of(self.bundle.contract.labels, row.tolist()) for row in self.probabilities(items)]

    def probabilities(self, items: Sequence[NewsItem]) -> FloatArray:
        """Classify items as `predict` does: all probabilities, `(items, num_labels)`, in label order.

        Raises:
            ValueError: If an item is no text or empty.
        """
        return self._runtime.predict(items)
