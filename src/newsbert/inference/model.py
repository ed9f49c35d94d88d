"""A trained model in this process: texts in, labels with probabilities out."""

from pathlib import Path
from typing import TYPE_CHECKING

from newsbert.bundle.bundle import AUTO, Bundle
from newsbert.core.types import FloatArray
from newsbert.data.text import NewsItems, list_items
from newsbert.inference.prediction import Prediction
from newsbert.inference.runtime import InferenceTimings, load_runtime, resolve_runtime

if TYPE_CHECKING:
    from newsbert.inference.explanation import Explanation


class Model:
    """A bundle loaded into a runtime.

    Args:
        bundle: The bundle.
        name: Name of the model, such as `BertModel/2`; defaults to the name of the bundle's directory.
        runtime: Name of the runtime, or `auto`.
        threads: Number of cores; defaults to all that this process may use.
        review_threshold: Score below which a person should review a prediction; defaults to the contract's threshold.
        cascade: Whether the companion answers texts alone: `on`, `off` or `auto`; see `resolve_cascade`.
    """

    def __init__(
        self,
        bundle: Bundle,
        name: str = "",
        runtime: str = AUTO,
        threads: int | None = None,
        review_threshold: float | None = None,
        *,
        cascade: str = AUTO,
    ) -> None:
        self.bundle = bundle
        self.review_threshold = bundle.contract.review_threshold if review_threshold is None else review_threshold
        self.name = name or bundle.path.name
        self.runtime = resolve_runtime(bundle, runtime)
        self._runtime = load_runtime(bundle, self.runtime, threads, cascade=cascade)

    @classmethod
    def from_directory(
        cls,
        path: Path,
        name: str = "",
        runtime: str = AUTO,
        review_threshold: float | None = None,
        *,
        cascade: str = AUTO,
    ) -> "Model":
        """Verify the files of the bundle in `path` and load it.

        Raises:
            ModelError: If `path` is not a bundle, or was altered after training.
        """
        bundle = Bundle.read(path)
        bundle.verify()
        return cls(bundle, name, runtime, review_threshold=review_threshold, cascade=cascade)

    def predict(self, items: NewsItems) -> list[Prediction]:
        """Classify texts, or objects with `title` and `text`; return the predictions in input order.

        A single item gets a list with one prediction.

        Raises:
            ValueError: If an item is not text, or is empty.
        """
        labels, timings = self.bundle.contract.labels, InferenceTimings()
        rows = self._runtime.predict_prepared([self._runtime.prepare(item) for item in list_items(items)], timings)
        return Prediction.list_of(labels, rows, self.review_threshold, timings.by_companion)

    def explain(self, items: NewsItems, *, label: str | None = None) -> "list[Explanation]":
        """Classify items as `predict` does, and attribute the probability of a label to their words.

        Args:
            items: Texts, or objects with `title` and `text`; or a single one.
            label: Label whose probability is explained; defaults to the predicted one.

        Raises:
            ValueError: If an item is not text or is empty, or the label does not exist.
        """
        from newsbert.inference import explanation

        items = list_items(items)
        texts = [self._runtime.prepare(item) for item in items]
        return [
            explanation.explain(self._runtime, text, prediction, label)
            for text, prediction in zip(texts, self.predict(items), strict=True)
        ]

    def probabilities(self, items: NewsItems) -> FloatArray:
        """Return the probabilities of all labels, `(items, num_labels)`, in label order.

        Args:
            items: Items as `predict` takes them.

        Raises:
            ValueError: If an item is not text, or is empty.
        """
        return self._runtime.predict(list_items(items))
