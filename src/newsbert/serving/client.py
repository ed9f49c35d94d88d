"""Asking a served model over HTTP."""

import email.utils
import http.client
import json
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from newsbert.core import environment, loopback
from newsbert.data.text import NewsItem, NewsItems, list_items
from newsbert.errors import BadRequestError, ServingError
from newsbert.inference.prediction import Prediction
from newsbert.serving import auth
from newsbert.serving.protocol import MODEL_HEADER, SERVED_NAME

if TYPE_CHECKING:
    from newsbert.inference.explanation import Explanation

_Answer = TypeVar("_Answer")

CHUNK_ITEMS, CHUNK_BYTES = 64, 512 * 1024
"""Bounds of a request; the server takes bodies of up to 1 MiB."""

FIRST_TIMEOUT_S, TIMEOUT_S = 30.0, 120.0
"""How long an answer is waited for, at first and at most: of a worker that dies, TorchServe forgets some requests."""

RETRY_S = 60.0
"""Time after its first failure within which a request is sent again."""

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0
_WORKER_DIED = "InternalServerException"
"""What TorchServe calls the loss of the worker that had the request; a model that fails is called otherwise."""


class _PassingError(Exception):
    """A failure that may be over when the request is sent again.

    Args:
        error: What to tell if it is not.
        wait_s: How long the server asks to wait.
    """

    def __init__(self, error: ServingError, wait_s: float = 0.0) -> None:
        super().__init__(error.message)
        self.error, self.wait_s = error, wait_s


class Client:
    """A served model; it is asked with the token that `NEWSBERT_TOKEN` or the file `NEWSBERT_KEY_FILE` holds.

    A request that meets a full queue, a worker that dies or a connection that is lost is sent again, after a time that
    doubles; asking twice changes nothing. A refusal is told at once, and so is a server that never answered.

    Args:
        url: The server's base URL, or the URL of the model's predictions.
        retry_s: How long a request is sent again after it first failed.
        headers: More headers of all requests, by name.

    Attributes:
        name: The model, as the server calls it in its last answer.
        response_headers: The headers of its last answer, by name in small letters.
    """

    def __init__(self, url: str, retry_s: float = RETRY_S, headers: Mapping[str, str] | None = None) -> None:
        self._retry_s = retry_s
        self._headers = dict(headers or {})
        self.response_headers: dict[str, str] = {}
        self._reached = False
        base = url if "://" in url else f"http://{url}"
        self.url = base if "/predictions/" in base else f"{base.rstrip('/')}/predictions/{SERVED_NAME}"
        self.name = ""

    def predict(self, items: NewsItems) -> list[Prediction]:
        """Classify texts or title/text objects, in their order; `name` is then what the server says of its model.

        One alone gets a list of one answer.

        Raises:
            BadRequestError: If the server refuses an item; the message is the server's.
            ServingError: If there is no server, or it cannot answer.
        """
        return [
            prediction for chunk in chunks(list_items(items)) for prediction in self._ask(chunk, Prediction.from_dict)
        ]

    def explain(self, items: NewsItems, *, label: str | None = None) -> "list[Explanation]":
        """Classify texts or title/text objects and have the server tell which of their words that rests on.

        Args:
            items: The texts, or one.
            label: Whose probability is explained; that of the predicted one, if not given.

        Raises:
            BadRequestError: If the server refuses an item, or knows no such label; the message is the server's.
            ServingError: If there is no server, or it cannot answer.
        """
        from newsbert.inference.explanation import Explanation

        explained = explained_items(list_items(items), label)
        return [answer for item in explained for answer in self._ask([item], Explanation.from_dict)]

    def _ask(self, items: Sequence[NewsItem], read: Callable[[Mapping[str, Any]], _Answer]) -> list[_Answer]:
        tries, failed_s = 0, 0.0
        while True:
            tries += 1
            try:
                return self._ask_once(items, read, min(FIRST_TIMEOUT_S * 2.0 ** (tries - 1), TIMEOUT_S))
            except _PassingError as failure:
                now = time.monotonic()
                failed_s = failed_s or now
                wait_s = max(failure.wait_s, _backoff_s(tries))
                if now + wait_s > failed_s + self._retry_s:
                    said = failure.error.message
                    said += f" (tried {tries} times in {now - failed_s:.0f} s)" if tries > 1 else ""
                    raise ServingError(said, failure.error.hint) from failure
            time.sleep(wait_s)

    def _ask_once(
        self, items: Sequence[NewsItem], read: Callable[[Mapping[str, Any]], _Answer], timeout_s: float
    ) -> list[_Answer]:
        token = _token()
        try:
            request = urllib.request.Request(
                self.url,
                body(items),
                {"Content-Type": "application/json", "Accept": "application/json", **self._headers},
            )
            if token is not None:
                request.add_unredirected_header(*auth.header(token))
            with loopback.urlopen(request, timeout=timeout_s) as response:
                self._reached = True
                self.response_headers = {name.lower(): value for name, value in response.headers.items()}
                self.name = urllib.parse.unquote(response.headers.get(MODEL_HEADER) or "")
                answers = json.load(response)
            found = [read(answer) for answer in answers]
        except urllib.error.HTTPError as error:
            with error:
                self._reached = True
                raise self._refused(error) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            lost = ServingError(f"no model server answers at {self.url}: {reason}", "newsbert serve locally starts one")
            if self._is_passing(error, reason):
                raise _PassingError(lost) from error
            raise lost from error
        except (KeyError, TypeError) as error:
            raise self._strange() from error
        if len(found) != len(items):
            raise self._strange()
        return found

    def _is_passing(self, error: Exception, reason: object) -> bool:
        """Tell whether a connection was lost, and not just never made."""
        if isinstance(error, ConnectionResetError | TimeoutError | http.client.IncompleteRead) or isinstance(
            reason, ConnectionResetError | ConnectionAbortedError | BrokenPipeError
        ):
            self._reached = True
            return True
        return self._reached and isinstance(reason, ConnectionRefusedError | TimeoutError)

    def _strange(self) -> ServingError:
        return ServingError(f"{self.url} answers in another form than a newsbert model", "check the URL")

    def _refused(self, error: urllib.error.HTTPError) -> ServingError | BadRequestError | _PassingError:
        kind = ""
        try:
            answer = json.loads(error.read())
            message, kind = str(answer["message"]), str(answer.get("type"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, http.client.HTTPException):
            message = error.reason or "no reason given"
        if error.code in {401, 403} or kind == auth.NOT_TAKEN:
            return ServingError(
                f"{self.url} wants a token, and that of this request is none or expired ({error.code})",
                "export NEWSBERT_TOKEN=$(newsbert serve token), asked where it is served",
            )
        if error.code in {400, 413, 415}:
            return BadRequestError(f"{self.url} refused the request ({error.code}): {message}", "mend the text")
        failed = ServingError(f"{self.url} answered {error.code}: {message}", "check the URL and the server's log")
        if error.code == 503 or (error.code >= 500 and kind == _WORKER_DIED):
            return _PassingError(failed, _seconds(error.headers.get("Retry-After")))
        return failed


def _backoff_s(tries: int) -> float:
    """How long to wait after so many tries: doubled each time, and scattered, lest all clients come back at once."""
    return min(_FIRST_WAIT_S * 2.0 ** (tries - 1), _LONGEST_WAIT_S) * random.uniform(0.5, 1.0)  # noqa: S311


def _seconds(retry_after: str | None) -> float:
    """Seconds that the header `Retry-After` asks for, as a number or a date; 0 for none, or what is neither."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _token() -> str | None:
    key_file = environment.key_file()
    return environment.token() or (auth.valid(key_file) if key_file else None)


def body(items: Sequence[NewsItem]) -> bytes:
    """What asks for the classes of items."""
    return json.dumps({"instances": [item if isinstance(item, str) else dict(item) for item in items]}).encode()


def explained_items(items: Sequence[NewsItem], label: str | None = None) -> list[dict[str, Any]]:
    """Return the items in the form that has their answers explained, which is a request for each of them.

    Args:
        items: Texts or title/text objects.
        label: Whose probability is explained; that of the predicted one, if not given.
    """
    named = {} if label is None else {"label": label}
    return [{**(item if isinstance(item, Mapping) else {"text": item}), "explain": True, **named} for item in items]


def chunks(items: Sequence[NewsItem]) -> Iterator[Sequence[NewsItem]]:
    """Cut items into what one request may hold, in their order."""
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
