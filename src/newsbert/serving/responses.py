"""HTTP responses: answers, and errors in TorchServe's form."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Protocol

from newsbert.serving.requests import (
    JSON,
    TEXT,
    RequestError,
    wants_labels_only,
    wants_tier,
)

RETRY_AFTER_S = 1


class Answer(Protocol):
    """A prediction, or one with an explanation."""

    def to_dict(self, *, tier: bool = False) -> dict[str, object]:
        """Return the object of the response, with the tier that answered if requested."""
        ...


def render(answers: Sequence[Answer], many: bool, headers: Mapping[str, Any]) -> tuple[str, bytes]:
    """Return content type and body: JSON, or for `Accept: text/plain` one label per line."""
    documents = [answer.to_dict(tier=wants_tier(headers)) for answer in answers]
    if wants_labels_only(headers):
        return f"{TEXT}; charset=utf-8", "\n".join(str(document["label"]) for document in documents).encode()
    return JSON, json.dumps(documents if many else documents[0], ensure_ascii=False).encode()


def describe(error: RequestError) -> bytes:
    """Return an error body in the form of TorchServe's own errors."""
    name = error.status.phrase.title().replace(" ", "")
    return json.dumps({"code": error.status.value, "type": name, "message": str(error)}).encode()


def refuse(context: Any, index: int, error: RequestError) -> bytes:
    """Set the HTTP status of a request in TorchServe's context, and return the error body."""
    context.set_response_status(error.status.value, error.status.phrase, index)
    context.set_response_content_type(index, JSON)
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        context.set_response_header(index, "Retry-After", str(RETRY_AFTER_S))
    return describe(error)
