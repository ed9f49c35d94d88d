"""A model as every server answers with it: verified, checked against its golden texts, with its name in answers."""

import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from newsbert.bundle.bundle import AUTO, Bundle
from newsbert.bundle.golden import check_answers, check_companion
from newsbert.core.types import FloatArray
from newsbert.inference.prediction import Prediction
from newsbert.inference.runtime import NEVER, load_runtime


class ServedModel:
    """A loaded model.

    Args:
        directory: Directory with the bundle's files that the runtime reads.
        name: The model's name in answers, such as `BertModel/7`.
        runtime: Name of the runtime.
        threads: Number of cores that it may use.
        review_threshold: The score below which an answer needs a review; the contract's if `None`.
        cascade: Whether the companion answers texts alone: `on`, `off` or `auto`; see `resolve_cascade`.

    Attributes:
        name: The model's name, as metrics have it.
        digest: The SHA-256 of its contract.
        version: The version in its name, such as `7`; empty if it is not registered.
        header: The model's name in a form that an HTTP header accepts.
        labels: The labels, in the order of the probabilities.
        runtime: The inference pipeline.
        review_threshold: The score below which an answer needs a review.

    Raises:
        ModelError: If the bundle was altered, or its answers differ from those in training.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        runtime: str,
        threads: int,
        review_threshold: float | None = None,
        *,
        cascade: str = AUTO,
    ) -> None:
        bundle = Bundle.read(directory)
        bundle.verify(only=bundle.names(runtime))
        contract = bundle.contract
        self.name, self.digest = name, bundle.digest
        last = name.rpartition("/")[2]
        self.version = last if "/" in name and last.isdecimal() else ""
        self.header = urllib.parse.quote(name, safe="/@ .-_+", errors="replace")
        self.labels = contract.labels
        self.max_length = contract.max_length
        self.review_threshold = contract.review_threshold if review_threshold is None else review_threshold
        self.runtime = load_runtime(bundle, runtime, threads, cascade=cascade)
        # A server that cannot answer, or answers otherwise than in training, must not count as ready; another kind of
        # processor can be the reason. This also warms the model up before the first request.
        golden = [self.runtime.prepare(example.item) for example in contract.golden]
        answers = self.runtime.predict_prepared(golden, threshold=NEVER)  # the companion must not hide the model
        check_answers(contract, runtime, [Prediction.of(self.labels, row) for row in answers.tolist()])
        if contract.companion is not None:
            check_companion(contract, self.runtime.predict_prepared(golden, threshold=0.0).tolist())

    def make_predictions(self, probabilities: FloatArray, by_companion: Sequence[bool]) -> list[Prediction]:
        """Return the answers to texts.

        Args:
            probabilities: `(texts, num_labels)`, in the order of the labels.
            by_companion: For every text whether the companion answered it alone.
        """
        return Prediction.list_of(self.labels, probabilities, self.review_threshold, by_companion)
