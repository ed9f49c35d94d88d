"""Responses: answers and refusals, as TorchServe sends them."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from newsbert.serving.requests import (
    JSON,
    TEXT,
    RequestError,
    wants_labels_only,
)

RETRY_AFTER_S = 1


def render(answers: Sequence[Mapping[str, object]], many: bool, headers: Mapping[str, Any]) -> tuple[str, bytes]:
    """Return content type and body: JSON, or bare labels, a line each, for `Accept: text/plain`."""
    if wants_labels_only(headers):
        return f"{TEXT}; charset=utf-8", "\n".join(str(answer["label"]) for answer in answers).encode()
    return JSON, json.dumps(answers if many else answers[0], ensure_ascii=False).encode()


def refuse(context: Any, index: int, error: RequestError) -> bytes:
    """Set a request's status and return the message, in the form that TorchServe's own errors have."""
    context.set_response_status(error.status.value, error.status.phrase, index)
    context.set_response_content_type(index, JSON)
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        context.set_response_header(index, "Retry-After", str(RETRY_AFTER_S))
    name = error.status.phrase.title().replace(" ", "")
    return json.dumps({"code": error.status.value, "type": name, "message": str(error)}).encode()
