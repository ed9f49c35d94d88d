"""Requests to the handler, as TorchServe's worker sends them."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from newsbert.serving import protocol
from newsbert.serving.handler import Handler

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # TorchServe leaves the file with its version open
    from ts.context import Context, RequestProcessor  # type: ignore[import-untyped]

JSON = {"content-type": "application/json"}
TEXT = {"content-type": "text/plain"}
FORM = {"content-type": "application/x-www-form-urlencoded"}

ITEM = {"title": "Cup final", "text": "goal for the team"}


@dataclass(frozen=True)
class Answer:
    """The handler's answer to one request."""

    status: int
    phrase: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """The message of an error."""
        assert self.headers["content-type"] == "application/json"
        assert set(self.json) == {"code", "type", "message"}
        assert self.json["code"] == self.status
        assert self.phrase
        return str(self.json["message"])


Request = tuple[Mapping[str, Any], Mapping[str, Any]]
"""Parameters and headers, as TorchServe hands them over."""


def send(handler: Handler, *requests: Request) -> list[Answer]:
    """Send a batch through the handler as TorchServe's worker does."""
    context = Context(protocol.SERVED_NAME, "", {}, len(requests), None, "0.12.0")
    context.request_processor = [RequestProcessor(dict(headers)) for _, headers in requests]
    bodies = handler.handle([parameters for parameters, _ in requests], context)
    assert len(bodies) == len(requests)
    answers = []
    for index, body in enumerate(bodies):
        status, phrase = context.get_response_status(index)
        answers.append(Answer(status, phrase, context.get_response_headers(index), body))
    return answers


def send_one(handler: Handler, parameters: Mapping[str, Any], headers: Mapping[str, Any]) -> Answer:
    """Send a batch of one request."""
    (answer,) = send(handler, (parameters, headers))
    return answer


def make_request(value: Any, **headers: str) -> Request:
    """Make a request whose body is a JSON document."""
    return {"body": json.dumps(value).encode()}, {**JSON, **headers}
