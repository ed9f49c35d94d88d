"""Parsing of requests: from headers and body to items, without validation."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

JSON, TEXT = "application/json", "text/plain"

FORM, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"

EXPLAIN_HEADER = "explain"
TIER_HEADER = "tier"
"""The header that TorchServe adds to a request to `/explanations`."""

_TEXT_KEYS = {"title", "text", "description"}


class RequestError(Exception):
    """A request that cannot be answered, with its HTTP status."""

    def __init__(self, message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(message)
        self.status = status


def ask_again(reason: str) -> RequestError:
    """Return the error for a request that may succeed later."""
    return RequestError(f"{reason}; send the request again", HTTPStatus.SERVICE_UNAVAILABLE)


def make_lane_full_error() -> RequestError:
    """Return the error for an explanation that arrives while too many wait."""
    return ask_again("too many explanations wait for their turn")


def make_not_complete_error() -> RequestError:
    """Return the error for an explanation that takes longer than a request may wait."""
    return ask_again("the explanation is being computed, and other requests wait for answers")


def make_model_failed_error() -> RequestError:
    """Return the error for a request that the model fails on."""
    return RequestError("the model failed; the server's log says why", HTTPStatus.INTERNAL_SERVER_ERROR)


def wants_tier(headers: Mapping[str, Any]) -> bool:
    """Return whether the client requests the tier that answered, with the header `tier: True`."""
    return str(headers.get(TIER_HEADER, "")).strip().lower() == "true"


def wants_labels_only(headers: Mapping[str, Any]) -> bool:
    """Return whether the client requests bare labels."""
    return str(headers.get("accept", "")).partition(",")[0].partition(";")[0].strip().lower() == TEXT


def parse_request(request: Mapping[str, Any], headers: Mapping[str, Any]) -> tuple[list[Any], bool]:
    """Return the items of a request, without validation, and whether it sent a list.

    Args:
        request: Parameters by name, `body` for a raw body; bytes or text.
        headers: Request headers, names in lower case.

    Raises:
        RequestError: If the request has an unsupported form.
    """
    encoding = str(headers.get("content-encoding") or "identity").strip().lower()
    if encoding != "identity":  # only raw bodies: an unpacked one could exceed the size limit
        message = f"the content encoding {encoding!r} is not read; send the body as it is"
        raise RequestError(message, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    kind, *parameters = (part.strip() for part in str(headers.get("content-type") or "").lower().split(";"))
    kind = kind or TEXT
    type_parameters = dict(parameter.partition("=")[::2] for parameter in parameters)
    if kind == MULTIPART and not type_parameters.get("boundary"):  # TorchServe passes it on unparsed
        raise RequestError(f"the content type {MULTIPART} needs a boundary, which HTTP clients add by themselves")
    if "body" not in request or kind in {FORM, MULTIPART}:  # a form may have a field `body`
        return _parse_form(request), False
    charset = type_parameters.get("charset", "").strip("\"' ") or "utf-8"
    if charset not in {"utf-8", "utf8", "us-ascii", "ascii"}:
        raise RequestError(f"the charset {charset!r} is not read; send UTF-8", HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    if kind == TEXT:
        return [decode_text(request["body"])], False
    if kind == JSON or kind.endswith("+json"):
        body = request["body"]
        return _parse_items(_parse_json(body) if isinstance(body, (bytes, bytearray, str)) else body)
    raise RequestError(
        f"the content type {kind!r} is not read; send {TEXT}, {JSON} or form data with data=TEXT",
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    )


def split_explain(item: Any, always: bool, labels: Sequence[str]) -> tuple[Any, bool, str | None]:
    """Split an item into its text, whether to explain the answer, and the label to explain.

    Raises:
        ValueError: If `explain` or `label` is invalid.
    """
    if not isinstance(item, Mapping):
        return item, always, None
    plain = {key: value for key, value in item.items() if key not in {"explain", "label"}}
    explain, label = item.get("explain", always), item.get("label")
    if not isinstance(explain, bool):
        raise ValueError("'explain' must be true or false")
    if label is not None and label not in labels:
        raise ValueError(f"there is no label {label!r}: {', '.join(labels)}")
    if label is not None and not explain:
        raise ValueError("'label' goes with \"explain\": true")
    return plain, explain, label


def _parse_form(request: Mapping[str, Any]) -> list[Any]:
    fields = {str(name): decode_text(value) for name, value in request.items()}
    if set(fields) == {"data"}:
        return [fields["data"]]
    if fields and set(fields) <= _TEXT_KEYS:
        return [fields]
    content = f"holds {', '.join(sorted(fields)[:5])}" if fields else "is empty"
    raise RequestError(f"the form {content}; send data=TEXT, or a bare text with 'Content-Type: {TEXT}'")


def _parse_json(body: Any) -> Any:
    try:
        return json.loads(decode_text(body))
    except RecursionError as error:
        raise RequestError("the JSON is nested too deep") from error
    except ValueError as error:
        raise RequestError(f"the body is not valid JSON: {error}") from error


def _parse_items(value: Any) -> tuple[list[Any], bool]:
    """Return the items of a JSON body, and whether they are a list."""
    expected = "expected an object with 'text', 'data' or 'instances'"
    if not isinstance(value, dict):
        raise RequestError(f"{expected}, got {type(value).__name__}")
    if "data" in value or "instances" in value:
        if len(value) > 1:
            raise RequestError(f"{expected} and nothing beside it, got {', '.join(sorted(value)[:5])}")
        ((key, items),) = value.items()
        if key == "instances" and not isinstance(items, list):
            raise RequestError("'instances' must be a list")
        return (items, True) if isinstance(items, list) else ([items], False)
    if not _TEXT_KEYS & set(value):
        raise RequestError(expected)
    return [value], False


def decode_text(value: Any) -> str:
    """Decode a text.

    Raises:
        RequestError: If it is not text in UTF-8.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, (bytes, bytearray)):
        raise RequestError(f"expected text, got {type(value).__name__}")
    try:
        return value.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(f"the body is not valid UTF-8 (byte {error.start})") from error


@dataclass(frozen=True)
class ParsedRequest:
    """The prepared texts of a request.

    Attributes:
        sequences: The texts.
        many: Whether the request sent a list, and gets a list.
        explained: Label to explain, by index of the text; `None` for the predicted label.
    """

    sequences: list[str]
    many: bool
    explained: dict[int, str | None]

    @property
    def plain(self) -> list[str]:
        """The texts that need no explanation."""
        return [text for index, text in enumerate(self.sequences) if index not in self.explained]
