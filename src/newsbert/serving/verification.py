"""Verification of a served model: comparison of its answers to the golden texts with a trusted contract."""

from collections.abc import Mapping
from typing import Any

from newsbert.bundle.contract import Contract
from newsbert.bundle.golden import check_answers, tolerance
from newsbert.errors import ServingError
from newsbert.inference.prediction import Prediction
from newsbert.serving.client import Client


def verify(client: Client, contract: Contract, runtime: str, model: str | None) -> str:
    """Classify the golden texts on a server, singly and together, and return a summary of the agreement.

    Args:
        client: A client of the server.
        contract: The model's contract, from a trusted source.
        runtime: Name of the runtime that computes the answers.
        model: Expected name of the model; not compared if `None`.

    Raises:
        ModelError: If a label differs, or a probability by more than the contract's tolerance.
        ServingError: If the server does not answer, or has another model.
    """
    items = [golden.item for golden in contract.golden]
    alone = []
    for item in items:
        alone += client.predict([item])
        _check_name(client.name, model, client.url)  # before the answers of another model are compared
    largest = max(check_answers(contract, runtime, answers) for answers in (alone, client.predict(items)))
    return _describe(contract, runtime, largest)


def collect(client: Client, contract: Contract) -> dict[str, Any]:
    """Classify the golden texts on a server, and return a document for `compare`.

    Raises:
        NewsbertError: If the server does not answer.
    """
    items = [golden.item for golden in contract.golden]
    alone = [client.predict([item])[0].to_dict() for item in items]
    return {"model": client.name, "alone": alone, "together": [answer.to_dict() for answer in client.predict(items)]}


def compare(document: Mapping[str, Any], contract: Contract, runtime: str, model: str, where: str) -> str:
    """Compare a document of `collect` with a contract, and return a summary of the agreement.

    Args:
        document: The document of `collect`.
        contract: The model's contract, from a trusted source.
        runtime: Name of the runtime that computes the answers.
        model: Expected name of the model.
        where: The server, for error messages.

    Raises:
        ModelError: If a label differs, or a probability by more than the contract's tolerance.
        ServingError: If another model answered, or the document is invalid.
    """
    try:
        name = str(document["model"])
        answers = [[Prediction.from_dict(answer) for answer in document[key]] for key in ("alone", "together")]
        _check_name(name, model, where)
        largest = max(check_answers(contract, runtime, predictions) for predictions in answers)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ServingError(
            f"the answers of {where} cannot be read", "build its image again, and deploy that"
        ) from error
    return _describe(contract, runtime, largest)


def _check_name(name: str, model: str | None, where: str) -> None:
    if model is not None and name != model:
        raise ServingError(f"{name!r} answers on {where}, and not {model!r}", "is there another server?")


def _describe(contract: Contract, runtime: str, largest: float) -> str:
    allowed = tolerance(contract, runtime)
    return f"{len(contract.golden)} golden texts, alone and together: at most {largest:.1e} off ({allowed:g} allowed)"
