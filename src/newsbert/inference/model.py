"""A trained model in this process: texts in, labels with probabilities out."""

from pathlib import Path
from typing import TYPE_CHECKING

from newsbert.bundle.bundle import AUTO, Bundle
from newsbert.core.types import FloatArray
from newsbert.data.text import NewsItems, list_items
from newsbert.inference.prediction import Prediction
from newsbert.inference.runtime import load_runtime, resolve_runtime

if TYPE_CHECKING:
    from newsbert.inference.explanation import Explanation


class Model:
    """A bundle loaded into a runtime.

    Args:
        bundle: The bundle.
        name: What to call it, such as `BertModel/2`.
        runtime: Name of the runtime, or `auto`.
        threads: Cores to use; as many as this process may, if not given.
        review_below: The score below which a person has to see an answer; the contract's, if not given.
    """

    def __init__(
        self,
        bundle: Bundle,
        name: str = "",
        runtime: str = AUTO,
        threads: int | None = None,
        review_below: float | None = None,
    ) -> None:
        self.bundle = bundle
        self.review_below = bundle.contract.review_below if review_below is None else review_below
        self.name = name or bundle.path.name
        self.runtime = resolve_runtime(bundle, runtime)
        self._runtime = load_runtime(bundle, self.runtime, threads)

    @classmethod
    def from_directory(
        cls, path: Path, name: str = "", runtime: str = AUTO, review_below: float | None = None
    ) -> "Model":
        """Load the bundle in `path`, its files verified.

        Raises:
            ModelError: If it is no bundle, or was altered after training.
        """
        bundle = Bundle.read(path)
        bundle.verify()
        return cls(bundle, name, runtime, review_below=review_below)

    def predict(self, items: NewsItems) -> list[Prediction]:
        """Classify texts, or objects with `title` and `text`, in their order; one alone gets a list of one answer.

        Raises:
            ValueError: If an item is no text or empty.
        """
        labels = self.bundle.contract.labels
        return [Prediction.of(labels, row.tolist(), self.review_below) for row in self.probabilities(items)]

    def explain(self, items: NewsItems, *, label: str | None = None) -> "list[Explanation]":
        """Classify items as `predict` does, and tell which of their words that rests on.

        Args:
            items: Texts, or objects with `title` and `text`; or one alone.
            label: Whose probability is explained; that of the predicted one, if not given.

        Raises:
            ValueError: If an item is no text or empty, or there is no such label.
        """
        from newsbert.inference import explanation

        items = list_items(items)
        texts = [self._runtime.prepare(item) for item in items]
        return [
            explanation.explain(self._runtime, text, prediction, label)
            for text, prediction in zip(texts, self.predict(items), strict=True)
        ]

    def probabilities(self, items: NewsItems) -> FloatArray:
        """Classify items as `predict` does: all probabilities, `(items, num_labels)`, in label order.

        Raises:
            ValueError: If an item is no text or empty.
        """
        return self._runtime.predict(list_items(items))
