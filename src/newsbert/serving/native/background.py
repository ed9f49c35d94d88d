"""A runtime for explanations: its texts wait until no request does."""

from collections.abc import Sequence

from newsbert.core.types import FloatArray
from newsbert.inference.runtime import InferenceTimings, Runtime, TokenAttributions
from newsbert.serving.native.scheduler import Scheduler


class BackgroundRuntime:
    """A runtime for explanations, whose texts are computed between the requests of a server."""

    def __init__(self, runtime: Runtime, scheduler: Scheduler) -> None:
        self._runtime, self._scheduler = runtime, scheduler

    def predict_prepared(
        self, sequences: Sequence[str], measured: InferenceTimings | None = None, threshold: float | None = None
    ) -> FloatArray:
        """Return the probabilities of prepared sequences, as `Runtime.predict_prepared` does."""
        job = self._scheduler.compute_in_background(self._runtime.encode(sequences, threshold))
        if measured is not None:
            measured.add(job.measured)
        return job.probabilities

    def choose_tier(self, sequence: str) -> float:
        """Return the threshold at which the tier that answers a prepared sequence answers all others, too."""
        return self._runtime.choose_tier(sequence)

    def reads(self, sequence: str) -> int:
        """Return the number of characters that the model reads of a prepared sequence."""
        return self._runtime.reads(sequence)

    def integrated_gradients(self, sequence: str, label: int, tolerance: float) -> TokenAttributions | None:
        """Return the contributions of a prepared sequence's tokens to a label's probability."""
        return self._runtime.integrated_gradients(sequence, label, tolerance)
