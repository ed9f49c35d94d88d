"""Asking a served model over HTTP."""

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence

from newsbert import config, loopback, tokens
from newsbert.archive import SERVED_NAME
from newsbert.errors import BadRequestError, ServingError
from newsbert.handler import MODEL_HEADER
from newsbert.model import Prediction
from newsbert.text import NewsItem

CHUNK_ITEMS, CHUNK_BYTES = 64, 512 * 1024
"""Bounds of a request; the server takes bodies of up to 1 MiB."""

TIMEOUT_S = 120


class Client:
    """A served model; it is asked with the token that `NEWSBERT_TOKEN` or the file `NEWSBERT_KEY_FILE` holds.

    Args:
        url: The server's base URL, or the URL of the model's predictions.
    """

    def __init__(self, url: str) -> None:
        base = url if "://" in url else f"http://{url}"
        self.url = base if "/predictions/" in base else f"{base.rstrip('/')}/predictions/{SERVED_NAME}"
        self.name = ""

    def predict(self, items: Sequence[NewsItem]) -> list[Prediction]:
        """Classify texts or title/text objects, in their order; `name` is then what the server says of its model.

        Raises:
            BadRequestError: If the server refuses an item; the message is the server's.
            ServingError: If there is no server, or it cannot answer.
        """
        return [prediction for chunk in chunks(items) for prediction in self._ask(chunk)]

    def _ask(self, items: Sequence[NewsItem]) -> list[Prediction]:
        token = _token()
        try:
            request = urllib.request.Request(
                self.url, body(items), {"Content-Type": "application/json", "Accept": "application/json"}
            )
            if token is not None:
                request.add_unredirected_header(*tokens.header(token))
            with loopback.urlopen(request, timeout=TIMEOUT_S) as response:
                self.name = urllib.parse.unquote(response.headers.get(MODEL_HEADER) or "")
                answers = json.load(response)
            predictions = [Prediction.from_dict(answer) for answer in answers]
        except urllib.error.HTTPError as error:
            raise self._refused(error) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise ServingError(
                f"no model server answers at {self.url}: {reason}", "newsbert serve locally starts one"
            ) from error
        except (KeyError, TypeError) as error:
            raise self._strange() from error
        if len(predictions) != len(items):
            raise self._strange()
        return predictions

    def _strange(self) -> ServingError:
        return ServingError(f"{self.url} answers in another form than a newsbert model", "check the URL")

    def _refused(self, error: urllib.error.HTTPError) -> ServingError | BadRequestError:
        kind = ""
        try:
            answer = json.loads(error.read())
            message, kind = str(answer["message"]), str(answer.get("type"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            message = error.reason or "no reason given"
        if error.code in {401, 403} or kind == tokens.NOT_TAKEN:
            return ServingError(
                f"{self.url} wants a token, and that of this request is none or expired ({error.code})",
                "export NEWSBERT_TOKEN=$(newsbert serve token), asked where it is served",
            )
        if error.code in {400, 413, 415}:
            return BadRequestError(f"{self.url} refused the request ({error.code}): {message}", "mend the text")
        return ServingError(f"{self.url} answered {error.code}: {message}", "check the URL and the server's log")


def _token() -> str | None:
    key_file = config.key_file()
    return config.token() or (tokens.valid(key_file) if key_file else None)


def body(items: Sequence[NewsItem]) -> bytes:
    """What asks for the classes of items."""
    return json.dumps({"instances": [item if isinstance(item, str) else dict(item) for item in items]}).encode()


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
