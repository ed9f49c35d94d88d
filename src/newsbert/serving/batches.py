"""Batches of requests: their parsing and validation, within the limits of a request and the budget of a batch."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from newsbert.data.text import NewsItem
from newsbert.inference.runtime import Runtime
from newsbert.serving.requests import (
    EXPLAIN_HEADER,
    ParsedRequest,
    RequestError,
    ask_again,
    parse_request,
    split_explain,
    wants_labels_only,
)

MAX_ITEMS = 1000
"""Maximum number of texts in one request; the server limits the bytes of a body."""

MAX_EXPLAINED = 10
"""Maximum number of explanations in one request: one takes as long as some hundreds of predictions."""

BATCH_BYTES, BATCH_TOKENS = 2 * 1024 * 1024, 65_536
"""Budget for the requests of one batch. The smallest requests go first, and the last one may exceed it."""


def parse(
    requests: Sequence[Mapping[str, Any]],
    headers: Sequence[Mapping[str, Any]],
    runtime: Runtime,
    labels: Sequence[str],
) -> "list[ParsedRequest | RequestError]":
    """Parse the requests of a batch that are within its budget, and refuse the others.

    Args:
        requests: Parameters of every request by name, `body` for a raw body.
        headers: Headers of every request, names in lower case.
        runtime: The runtime that prepares the texts.
        labels: The model's labels, one of which a request may have explained.
    """
    parsed: list[ParsedRequest | RequestError] = []
    within = _select_within_budget([count_bytes(request) for request in requests], BATCH_BYTES)
    for index, request in enumerate(requests):
        try:
            parsed.append(
                parse_one(request, headers[index], runtime, labels) if within[index] else _make_over_budget_error()
            )
        except RequestError as error:
            parsed.append(error)
    num_tokens = [
        sum(map(runtime.estimate_tokens, request.plain)) if isinstance(request, ParsedRequest) else 0
        for request in parsed
    ]
    within = _select_within_budget(num_tokens, BATCH_TOKENS)
    return [request if within[index] else _make_over_budget_error() for index, request in enumerate(parsed)]


def parse_one(
    request: Mapping[str, Any], headers: Mapping[str, Any], runtime: Runtime, labels: Sequence[str]
) -> ParsedRequest:
    """Parse a request.

    Raises:
        RequestError: If the request is invalid, or exceeds a limit.
    """
    items, many = parse_request(request, headers)
    always = headers.get(EXPLAIN_HEADER) == "True"
    _check_number(items)
    sequences: list[str] = []
    explained_labels: dict[int, str | None] = {}
    for index, item in enumerate(items):
        try:
            plain, explained, label = split_explain(item, always, labels)
            sequences.append(runtime.prepare(plain))
        except ValueError as error:
            raise RequestError(f"item {index}: {error}" if many else str(error)) from error
        if explained:
            explained_labels[index] = label
    if len(explained_labels) > MAX_EXPLAINED:
        message = f"{len(explained_labels)} explanations in one request; the maximum is {MAX_EXPLAINED}"
        raise RequestError(message, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    return ParsedRequest(sequences, many, {} if wants_labels_only(headers) else explained_labels)


def prepare(items: Sequence[NewsItem], runtime: Runtime) -> ParsedRequest:
    """Return a request for the predictions of texts or title/text objects.

    Raises:
        RequestError: If there are too many, or one is empty.
    """
    _check_number(items)
    sequences: list[str] = []
    for index, item in enumerate(items):
        try:
            sequences.append(runtime.prepare(item))
        except ValueError as error:
            raise RequestError(f"item {index}: {error}") from error
    return ParsedRequest(sequences, True, {})


def _check_number(items: Sequence[object]) -> None:
    if not items:
        raise RequestError("the list is empty")
    if len(items) > MAX_ITEMS:
        message = f"{len(items)} texts in one request; at most {MAX_ITEMS} are answered"
        raise RequestError(message, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


def count_bytes(request: Mapping[str, Any]) -> int:
    """Count the bytes of a request's raw parameters; decoded JSON does not count."""
    return sum(len(value) for value in request.values() if isinstance(value, (bytes, bytearray, str)))


def _select_within_budget(costs: Sequence[int], budget: int) -> list[bool]:
    """Return for every cost whether it fits a budget: the smallest go first, and the last one may exceed it."""
    within = [False] * len(costs)
    for index in sorted(range(len(costs)), key=costs.__getitem__):
        within[index] = budget > 0
        budget -= costs[index]
    return within


def _make_over_budget_error() -> RequestError:
    return ask_again("the requests that came together are too much for one batch")
