"""HTTP client of a served model."""

import email.utils
import json
import random
import time
import urllib.parse
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import httpx2

from newsbert.core import environment, loopback
from newsbert.data.text import NewsItem, NewsItems, list_items
from newsbert.errors import BadRequestError, ServingError
from newsbert.inference.prediction import Prediction
from newsbert.serving import auth
from newsbert.serving.protocol import MODEL_HEADER, SERVED_NAME
from newsbert.serving.requests import TIER_HEADER

if TYPE_CHECKING:
    from newsbert.inference.explanation import Explanation

_Answer = TypeVar("_Answer")

CHUNK_ITEMS, CHUNK_BYTES = 64, 512 * 1024
"""Bounds of a request; the server takes bodies of up to 1 MiB."""

FIRST_TIMEOUT_S, TIMEOUT_S = 30.0, 120.0
"""Timeout of the first try, and upper limit of later ones: TorchServe loses some requests of a worker that dies."""

RETRY_S = 60.0
"""Time after its first failure in which a request is retried."""

_FIRST_BACKOFF_S, _MAX_BACKOFF_S = 0.1, 5.0
_WORKER_DIED = "InternalServerException"
"""TorchServe's error type if the worker died with the request; an error of the model has another type."""


class _TransientError(Exception):
    """A failure that a retry may resolve.

    Args:
        error: The error to raise if retries fail.
        wait_s: Delay that the server requests.
    """

    def __init__(self, error: ServingError, wait_s: float = 0.0) -> None:
        super().__init__(error.message)
        self.error, self.wait_s = error, wait_s


class Client:
    """A client of a served model, which keeps its connections open; threads may use it at the same time.

    It sends the token of `NEWSBERT_TOKEN` or of the file `NEWSBERT_KEY_FILE`. It retries a request after a full queue,
    the death of a worker or a lost connection, with exponential backoff. A retry is safe, since requests change
    nothing. A refused request fails at once, and so does a request to a server that never answered.

    Args:
        url: The server's base URL, or the URL of the model's predictions.
        retry_s: Time after its first failure in which a request is retried.
        headers: Additional headers of all requests, by name.

    Attributes:
        name: The model's name in the last response.
        response_headers: The headers of the last response, by lower-case name.

    Raises:
        ServingError: If the URL, or the environment's proxy for it, is invalid.
    """

    def __init__(self, url: str, retry_s: float = RETRY_S, headers: Mapping[str, str] | None = None) -> None:
        self._retry_s = retry_s
        self._headers = dict(headers or {})
        self.response_headers: dict[str, str] = {}
        self._reached = False
        base = url if "://" in url else f"http://{url}"
        self.url = base if "/predictions/" in base else f"{base.rstrip('/')}/predictions/{SERVED_NAME}"
        self.name = ""
        self._http = loopback.make_client(self.url)
        weakref.finalize(self, self._http.close)

    def predict(self, items: NewsItems) -> list[Prediction]:
        """Classify texts or title/text objects, in their order, and set `name` to the model's name.

        A single item gives a list of one prediction.

        Raises:
            BadRequestError: If the server refuses an item; the message is the server's.
            ServingError: If there is no server, or it cannot answer.
        """
        return [
            prediction for chunk in chunks(list_items(items)) for prediction in self._send(chunk, Prediction.from_dict)
        ]

    def explain(self, items: NewsItems, *, label: str | None = None) -> "list[Explanation]":
        """Classify texts or title/text objects, and have the server explain the predictions by the words.

        Args:
            items: The texts, or one.
            label: The label whose probability is explained; by default the predicted one.

        Raises:
            BadRequestError: If the server refuses an item, or knows no such label; the message is the server's.
            ServingError: If there is no server, or it cannot answer.
        """
        from newsbert.inference.explanation import Explanation

        explained = explained_items(list_items(items), label)
        return [answer for item in explained for answer in self._send([item], Explanation.from_dict)]

    def _send(self, items: Sequence[NewsItem], read: Callable[[Mapping[str, Any]], _Answer]) -> list[_Answer]:
        tries, failed_s = 0, 0.0
        while True:
            tries += 1
            try:
                return self._send_once(items, read, min(FIRST_TIMEOUT_S * 2.0 ** (tries - 1), TIMEOUT_S))
            except _TransientError as failure:
                now = time.monotonic()
                failed_s = failed_s or now
                wait_s = max(failure.wait_s, _compute_backoff_s(tries))
                if now + wait_s > failed_s + self._retry_s:
                    message = failure.error.message
                    message += f" (tried {tries} times in {now - failed_s:.0f} s)" if tries > 1 else ""
                    raise ServingError(message, failure.error.hint) from failure
            time.sleep(wait_s)

    def _send_once(
        self, items: Sequence[NewsItem], read: Callable[[Mapping[str, Any]], _Answer], timeout_s: float
    ) -> list[_Answer]:
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            TIER_HEADER: "True",
            **self._headers,
        }
        if (token := _read_token()) is not None:
            headers.update([auth.header(token)])
        try:
            response = self._http.post(self.url, content=body(items), headers=headers, timeout=timeout_s)
        except (httpx2.HTTPError, ValueError) as error:
            failure = ServingError(
                f"no model server answers at {self.url}: {error}", "newsbert serve locally starts one"
            )
            raise _TransientError(failure) if self._is_transient(error) else failure from error
        self._reached = True
        if not response.is_success:
            raise self._parse_error(response)
        self.response_headers = dict(response.headers)
        self.name = urllib.parse.unquote(response.headers.get(MODEL_HEADER, ""))
        try:
            results = [read(answer) for answer in response.json()]
        except (ValueError, KeyError, TypeError) as error:
            raise self._make_format_error() from error
        if len(results) != len(items):
            raise self._make_format_error()
        return results

    def _is_transient(self, error: Exception) -> bool:
        """Return whether an established connection was lost, as opposed to one that was never made."""
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            return self._reached
        is_lost = isinstance(error, httpx2.NetworkError | httpx2.TimeoutException | httpx2.RemoteProtocolError)
        self._reached |= is_lost
        return is_lost

    def _make_format_error(self) -> ServingError:
        return ServingError(f"{self.url} answers in another form than a newsbert model", "check the URL")

    def _parse_error(self, response: httpx2.Response) -> ServingError | BadRequestError | _TransientError:
        status, (message, kind) = response.status_code, describe_failure(response)
        if status in {401, 403} or kind == auth.NOT_TAKEN:
            return ServingError(
                f"{self.url} wants a token, and that of this request is none or expired ({status})",
                "export NEWSBERT_TOKEN=$(newsbert serve token), on the server's machine",
            )
        if status in {400, 413, 415}:
            return BadRequestError(f"{self.url} refused the request ({status}): {message}", "mend the text")
        failure = ServingError(f"{self.url} answered {status}: {message}", "check the URL and the server's log")
        if status == 503 or (status >= 500 and kind == _WORKER_DIED):
            return _TransientError(failure, _parse_retry_after(response.headers.get("Retry-After")))
        return failure


def _compute_backoff_s(tries: int) -> float:
    """Return the delay before the next try: exponential backoff with jitter, to spread the retries of many clients."""
    return min(_FIRST_BACKOFF_S * 2.0 ** (tries - 1), _MAX_BACKOFF_S) * random.uniform(0.5, 1.0)  # noqa: S311


def _parse_retry_after(retry_after: str | None) -> float:
    """Return the delay of the header `Retry-After`, a number of seconds or a date; 0 if it is missing or invalid."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _read_token() -> str | None:
    key_file = environment.key_file()
    return environment.token() or (auth.valid(key_file) if key_file else None)


def describe_failure(response: httpx2.Response) -> tuple[str, str]:
    """Return the message and the error type in an error response, or the status line's reason and no type."""
    try:
        answer = response.json()
        return str(answer["message"]), str(answer.get("type"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return response.reason_phrase or "no reason given", ""


def body(items: Sequence[NewsItem]) -> bytes:
    """Return the JSON body of a request that classifies items."""
    return json.dumps({"instances": [item if isinstance(item, str) else dict(item) for item in items]}).encode()


def explained_items(items: Sequence[NewsItem], label: str | None = None) -> list[dict[str, Any]]:
    """Return the items as objects that request an explanation, to be sent in one request per item.

    Args:
        items: Texts or title/text objects.
        label: The label whose probability is explained; by default the predicted one.
    """
    label_field = {} if label is None else {"label": label}
    return [
        {**(item if isinstance(item, Mapping) else {"text": item}), "explain": True, **label_field} for item in items
    ]


def chunks(items: Sequence[NewsItem]) -> Iterator[Sequence[NewsItem]]:
    """Yield the items in chunks that fit into one request, in their order."""
    chunk: list[NewsItem] = []
    room = CHUNK_BYTES
    for item in items:
        size = len(body([item]))
        if chunk and (len(chunk) == CHUNK_ITEMS or size > room):
            yield chunk
            chunk, room = [], CHUNK_BYTES
        chunk.append(item)
        room -= size
    if chunk:
        yield chunk
