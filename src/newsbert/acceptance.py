"""What a deployed model is asked where it answers, before it is left to answer there."""

import shlex

from newsbert import labelled
from newsbert.bundle import Bundle
from newsbert.client import Client
from newsbert.errors import ServingError
from newsbert.settings import EnvironmentSettings


def ask(url: str, model: str, bundle: Bundle, settings: EnvironmentSettings) -> str:
    """Ask a model its golden texts, and the environment's labelled rows, of which it has to get enough right.

    Args:
        url: Where it answers.
        model: What it calls itself.
        bundle: Its own.
        settings: The environment's.

    Returns:
        What it was asked and how it answered.

    Raises:
        ServingError: If another model answers, or too few answers are right.
        NewsbertError: If it cannot be asked, or the rows cannot be read.
    """
    client, contract = Client(url), bundle.contract
    answers = client.predict([golden.item for golden in contract.golden])
    if client.name != model:
        raise ServingError(f"{client.name!r} answers on {url}", "is there another server?")
    for golden, answer in zip(contract.golden, answers, strict=True):
        right = contract.labels[max(range(len(contract.labels)), key=golden.probabilities.__getitem__)]
        if answer.label != right:
            raise ServingError(
                f"{golden.item!r:.200} is {answer.label!r} on {url}, and was {right!r} in training",
                "does something change requests on their way?",
            )
    said = f"{len(answers)} golden texts"
    if settings.acceptance is None:
        return said
    rows = labelled.labelled(settings.acceptance, contract.labels)
    answers = client.predict(rows.items)
    hits = sum(answer.label == contract.labels[label] for answer, label in zip(answers, rows.labels, strict=True))
    share = hits / len(answers)
    counted = f"{hits} of {len(answers)} rows of {settings.acceptance}"
    if share < settings.least_accuracy:
        raise ServingError(
            f"{counted} are answered rightly, {share:.4f}, and {settings.least_accuracy:g} is wanted",
            f"newsbert evaluate {shlex.quote(model)} --data {shlex.quote(settings.acceptance)} tells where it errs",
        )
    return f"{said}, and {counted}: {share:.4f}, {settings.least_accuracy:g} wanted"
