"""What a deployed model is asked where it answers, before it is left to answer there."""

import shlex

from newsbert.bundle.bundle import Bundle
from newsbert.core.settings import EnvironmentSettings
from newsbert.data import evaluation_set
from newsbert.errors import ModelError, ServingError
from newsbert.serving import verification
from newsbert.serving.client import Client


class Acceptance:
    """A model's golden texts, and an environment's labelled rows, of which it has to get enough right.

    Args:
        model: What it calls itself, `BertModel/7`.
        bundle: Its own.
        settings: The environment's.

    Raises:
        NewsbertError: If the rows cannot be read, or are not for this model.
    """

    def __init__(self, model: str, bundle: Bundle, settings: EnvironmentSettings) -> None:
        self._model, self._contract, self._settings = model, bundle.contract, settings
        self._rows = (
            evaluation_set.labelled(settings.acceptance, self._contract.labels) if settings.acceptance else None
        )

    def ask(self, url: str, runtime: str) -> str:
        """Ask the model that answers at `url`, by a runtime, and return what it was asked and how it answered.

        Raises:
            ServingError: If it is another model, a golden text is answered otherwise than in training, or too few rows
                are answered rightly.
            NewsbertError: If it cannot be asked.
        """
        client, labels = Client(url), self._contract.labels
        try:
            verification.verify(client, self._contract, runtime, self._model)
        except ModelError as error:  # when it was deployed it did
            raise ServingError(f"{error.message} on {url}", "does something change requests on their way?") from error
        said = f"{len(self._contract.golden)} golden texts"
        if self._rows is None:
            return said
        answers = client.predict(self._rows.items)
        hits = sum(answer.label == labels[label] for answer, label in zip(answers, self._rows.labels, strict=True))
        share, wanted, file = hits / len(answers), self._settings.least_accuracy, str(self._settings.acceptance)
        counted = f"{hits} of {len(answers)} rows of {file}"
        if share < wanted:
            raise ServingError(
                f"{counted} are answered rightly, {share:.4f}, and {wanted:g} is wanted",
                shlex.join(["newsbert", "evaluate", self._model, "--data", file]) + " tells where it errs",
            )
        return f"{said}, and {counted}: {share:.4f}, {wanted:g} wanted"
