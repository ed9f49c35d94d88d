"""A model as the servers of others ask it: tensors of the Open Inference Protocol in, tensors out."""

from collections.abc import Mapping
from pathlib import Path

from newsbert.core import cpu
from newsbert.inference.runtime import InferenceTimings
from newsbert.serving import batches
from newsbert.serving.native import open_inference
from newsbert.serving.served_model import ServedModel

Tensors = Mapping[str, tuple[tuple[int, ...], list[bytes | str]]]


class TensorModel:
    """A served model that answers tensors.

    Args:
        directory: The bundle.
        name: The model's name in answers.
        runtime: Name of the runtime.

    Raises:
        ModelError: If the bundle was altered, or its answers differ from those in training.
    """

    def __init__(self, directory: Path, name: str, runtime: str) -> None:
        self._model = ServedModel(directory, name, runtime, cpu.cores())

    def infer(self, tensors: Tensors) -> dict[str, open_inference.Value]:
        """Return the values of all outputs by name; `probabilities` has the texts' rows.

        Args:
            tensors: Shape and elements of every input, by name.

        Raises:
            RequestError: If an input is missing, or not valid.
        """
        request = batches.prepare(open_inference.make_items(tensors), self._model.runtime)
        timings = InferenceTimings()
        probabilities = self._model.runtime.predict_prepared(request.sequences, timings)
        predictions = self._model.make_predictions(probabilities, timings.by_companion)
        return open_inference.make_outputs(predictions, self._model.labels, probabilities)
