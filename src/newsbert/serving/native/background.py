"""A runtime for explanations: its texts wait until no request does."""

from collections.abc import Sequence

from newsbert.core.types import FloatArray
from newsbert.inference.runtime import Runtime, TokenAttributions
from newsbert.serving.native.scheduler import Scheduler


class BackgroundRuntime:
    """A runtime for explanations, whose texts are computed between the requests of a server."""

    def __init__(self, runtime: Runtime, scheduler: Scheduler) -> None:
        self._runtime, self._scheduler = runtime, scheduler

    def predict_prepared(self, sequences: Sequence[str]) -> FloatArray:
        """Return the probabilities of prepared sequences: `(batch, num_labels)`, in input order."""
        return self._scheduler.compute_in_background(sequences)

    def reads(self, sequence: str) -> int:
        """Return the number of characters that the model reads of a prepared sequence."""
        return self._runtime.reads(sequence)

    def integrated_gradients(self, sequence: str, label: int, tolerance: float) -> TokenAttributions | None:
        """Return the contributions of a prepared sequence's tokens to a label's probability."""
        return self._runtime.integrated_gradients(sequence, label, tolerance)
