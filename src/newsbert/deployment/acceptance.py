"""Acceptance test of a deployed model at its URL."""

import shlex

from newsbert.bundle.bundle import Bundle
from newsbert.core.settings import EnvironmentSettings
from newsbert.data import evaluation_set
from newsbert.errors import ModelError, ServingError
from newsbert.serving import verification
from newsbert.serving.client import Client


class Acceptance:
    """Acceptance test with a model's golden texts, and an environment's labelled rows with a minimum accuracy.

    Args:
        model: Name that the model reports, `BertModel/7`.
        bundle: Bundle of the model.
        settings: Settings of the environment.

    Raises:
        NewsbertError: If the rows cannot be read, or are not for this model.
    """

    def __init__(self, model: str, bundle: Bundle, settings: EnvironmentSettings) -> None:
        self._model, self._contract, self._settings = model, bundle.contract, settings
        self._rows = (
            evaluation_set.labelled(settings.acceptance_data, self._contract.labels, cleaning=[self._contract.cleaning])
            if settings.acceptance_data
            else None
        )

    def ask(self, url: str, runtime: str) -> str:
        """Test the model that answers at `url` with a runtime, and return a summary of the test.

        Raises:
            ServingError: If it is another model, a golden text is not answered as in training, or too few rows are
                answered correctly.
            NewsbertError: If the model cannot be queried.
        """
        client, labels = Client(url), self._contract.labels
        try:
            verification.verify(client, self._contract, runtime, self._model)
        except ModelError as error:  # it passed when it was deployed
            raise ServingError(f"{error.message} on {url}", "does something change requests on their way?") from error
        summary = f"{len(self._contract.golden)} golden texts"
        if self._rows is None:
            return summary
        answers = client.predict(self._rows.items)
        correct = sum(answer.label == labels[label] for answer, label in zip(answers, self._rows.labels, strict=True))
        accuracy, minimum, file = (
            correct / len(answers),
            self._settings.min_accuracy,
            str(self._settings.acceptance_data),
        )
        row_summary = f"{correct} of {len(answers)} rows of {file}"
        if accuracy < minimum:
            raise ServingError(
                f"{row_summary} are answered rightly, {accuracy:.4f}, and at least {minimum:g} is required",
                shlex.join(["newsbert", "evaluate", self._model, "--data", file]) + " tells where it errs",
            )
        return f"{summary}, and {row_summary}: {accuracy:.4f}, {minimum:g} required"
