"""What runs inside TorchServe: requests in, answers or errors out, each for itself.

TorchServe gives a batch of requests to `handle`. A request that is wrong gets a 4xx with a message and never touches
its neighbours; all texts of all other requests go through the runtime together. Bodies arrive as bytes, since the
server is configured with `decode_input_request=false`: otherwise it would decode JSON itself, and pass broken JSON on
as if it were text. A server of somebody else's may still do that, so a decoded body is understood too.
"""

import json
import logging
import traceback
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np

from newsbert import agreement, config, cpu, explanation, runtimes
from newsbert.activity import Activity
from newsbert.bundle import Bundle, files_of
from newsbert.metrics import Metrics
from newsbert.model import Prediction
from newsbert.problems import tell
from newsbert.runtimes import Measured, Runtime

MAX_ITEMS = 1000
"""Texts in one request; the server bounds the bytes of a body."""

MAX_EXPLAINED = 10
"""Explanations in one request: each takes as long as some hundreds of answers."""

MODEL_HEADER = "X-Newsbert-Model"
_JSON, _TEXT, _FORM = "application/json", "text/plain", "application/x-www-form-urlencoded"
_EXPLAIN_HEADER = "explain"
"""What TorchServe adds to a request that came to `/explanations`."""

_TEXT_KEYS = {"title", "text", "description"}


class RequestError(Exception):
    """A request that cannot be answered, and the status that says why."""

    def __init__(self, message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(message)
        self.status = status


_CLOSING = RequestError("this server is stopping", HTTPStatus.SERVICE_UNAVAILABLE)
_FAILED = RequestError("the model failed; the server's log says why", HTTPStatus.INTERNAL_SERVER_ERROR)


@dataclass(frozen=True)
class Parsed:
    """A request's texts, prepared.

    Attributes:
        sequences: The texts.
        many: Whether a list was sent and a list is to be answered.
        explained: Indices of the texts whose answers are to be explained, with the label, if not that of the answer.
    """

    sequences: list[str]
    many: bool
    explained: dict[int, str | None]


class Handler:
    """A loaded model that answers batches of TorchServe's requests.

    Args:
        directory: The unpacked archive.
        name: What the answers say of the model, such as `BertModel/7`.
        runtime: Name of the runtime.
        workers: How many workers share this machine's cores.
        review_below: The score below which a person has to see an answer; the contract's, if not given.

    Raises:
        ModelError: If the archive was altered, or does not answer as the model did in training.
    """

    def __init__(
        self,
        directory: Path,
        name: str = "",
        runtime: str = "onnxruntime",
        workers: int = 1,
        review_below: float | None = None,
    ) -> None:
        bundle = Bundle.read(directory)
        bundle.verify(only=files_of(runtime))
        self._labels = bundle.contract.labels
        self._review_below = bundle.contract.review_below if review_below is None else review_below
        self._runtime: Runtime = runtimes.load(bundle, runtime, max(1, cpu.cores() // workers))
        self._name = urllib.parse.quote(name, safe="/@ .-_+", errors="replace")
        # A worker that answers otherwise than the model did in training, on a processor of another kind for one, must
        # not count as ready, nor one that cannot answer; and the first request should not pay for warming up.
        golden = bundle.contract.golden
        answers = self._runtime.predict([each.item for each in golden])
        agreement.check(bundle.contract, runtime, [Prediction.of(self._labels, each) for each in answers.tolist()])
        self._activity = Activity(config.activity_dir())
        self._metrics = Metrics(config.metrics_dir(), name, self._labels)

    def handle(self, requests: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """Answer a batch.

        Args:
            requests: For each request its parameters by name, `body` for a raw body.
            context: TorchServe's context; it has the headers and takes status and response headers.

        Returns:
            A body for each request.
        """
        if self._activity.closing:
            return self._refuse_all(requests, context, _CLOSING)
        try:
            with self._activity.answering():
                return self._answer(requests, context)
        except Exception as error:  # whatever it is, those who asked are told, and the operator is in one line
            tell("prediction-failed", f"{type(error).__name__}: {error}", len(requests), traceback.format_exc())
            return self._refuse_all(requests, context, _FAILED)

    def _refuse_all(self, requests: Sequence[Mapping[str, Any]], context: Any, error: RequestError) -> list[bytes]:
        self._metrics.batch([error.status] * len(requests), np.empty((0, len(self._labels)), np.float32), Measured())
        return [_refuse(context, index, error) for index in range(len(requests))]

    def _answer(self, requests: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        parsed: list[Parsed | RequestError] = []
        accepts = []
        for index, request in enumerate(requests):
            headers = {str(key).lower(): value for key, value in context.get_all_request_header(index).items()}
            accepts.append(str(headers.get("accept", "")))
            try:
                parsed.append(self._parse(request, headers))
            except RequestError as error:
                parsed.append(error)
        sequences = [text for each in parsed if isinstance(each, Parsed) for text in each.sequences]
        measured = Measured()
        probabilities = self._runtime.predict_prepared(sequences, measured)
        answers = [Prediction.of(self._labels, each, self._review_below) for each in probabilities.tolist()]
        rest = iter(answers)
        bodies = []
        for index, each in enumerate(parsed):
            context.set_response_header(index, MODEL_HEADER, self._name)
            if isinstance(each, RequestError):
                bodies.append(_refuse(context, index, each))
            else:
                predictions = [next(rest) for _ in each.sequences]
                content_type, body = self._render(each, predictions, accepts[index])
                context.set_response_content_type(index, content_type)
                bodies.append(body)
        statuses = [each.status if isinstance(each, RequestError) else HTTPStatus.OK for each in parsed]
        self._metrics.batch(statuses, probabilities, measured, sum(each.review for each in answers))
        return bodies

    def _parse(self, request: Mapping[str, Any], headers: Mapping[str, Any]) -> Parsed:
        items, many = parse_request(request, headers)
        always = headers.get(_EXPLAIN_HEADER) == "True"
        if not items:
            raise RequestError("the list is empty")
        if len(items) > MAX_ITEMS:
            message = f"{len(items)} texts in one request; at most {MAX_ITEMS} are answered"
            raise RequestError(message, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        sequences: list[str] = []
        wanted: dict[int, str | None] = {}
        for index, item in enumerate(items):
            try:
                plain, explained, label = _explained(item, always, self._labels)
                sequences.append(self._runtime.prepare(plain))
            except ValueError as error:
                raise RequestError(f"item {index}: {error}" if many else str(error)) from error
            if explained:
                wanted[index] = label
        if len(wanted) > MAX_EXPLAINED:
            message = f"{len(wanted)} explanations in one request; at most {MAX_EXPLAINED} are given"
            raise RequestError(message, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        return Parsed(sequences, many, wanted)

    def _render(self, parsed: Parsed, predictions: Sequence[Prediction], accept: str) -> tuple[str, bytes]:
        """Return content type and body: JSON, or bare labels, a line each, for `Accept: text/plain`."""
        if accept.partition(",")[0].partition(";")[0].strip().lower() == _TEXT:
            return f"{_TEXT}; charset=utf-8", "\n".join(prediction.label for prediction in predictions).encode()
        answers = [prediction.to_dict() for prediction in predictions]
        for index, label in parsed.explained.items():
            text, answer = parsed.sequences[index], predictions[index]
            answers[index] = explanation.explain(self._runtime, text, answer, label).to_dict()
        return _JSON, json.dumps(answers if parsed.many else answers[0], ensure_ascii=False).encode()


def parse_request(request: Mapping[str, Any], headers: Mapping[str, Any]) -> tuple[list[Any], bool]:
    """Return the items that a request holds, unchecked, and whether it sent a list.

    Args:
        request: Parameters by name, `body` for a raw body; bytes or text.
        headers: Request headers, names in lower case.

    Raises:
        RequestError: If the form of the request is none that is answered.
    """
    encoding = str(headers.get("content-encoding") or "identity").strip().lower()
    if encoding != "identity":  # whatever it would unpack to, it is bounded and read as it comes
        message = f"the content encoding {encoding!r} is not read; send the body as it is"
        raise RequestError(message, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    if "body" not in request:
        return _parse_form(request), False
    kind, *parameters = (part.strip() for part in str(headers.get("content-type") or "").lower().split(";"))
    kind = kind or _TEXT
    named = dict(parameter.partition("=")[::2] for parameter in parameters)
    charset = named.get("charset", "").strip("\"' ") or "utf-8"
    if charset not in {"utf-8", "utf8", "us-ascii", "ascii"}:
        raise RequestError(f"the charset {charset!r} is not read; send UTF-8", HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    if kind == _TEXT:
        return [_text(request["body"])], False
    if kind == _JSON or kind.endswith("+json"):
        body = request["body"]
        return _items(_json(body) if isinstance(body, (bytes, bytearray, str)) else body)
    raise RequestError(
        f"the content type {kind!r} is not read; send {_TEXT}, {_JSON} or form data with data=TEXT",
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    )


def _explained(item: Any, always: bool, labels: Sequence[str]) -> tuple[Any, bool, str | None]:
    """Take out of an item whether, and for which label, its answer is to be explained.

    Raises:
        ValueError: If that has another form.
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
    fields = {str(name): _text(value) for name, value in request.items()}
    if set(fields) == {"data"}:
        return [fields["data"]]
    if fields and set(fields) <= _TEXT_KEYS:
        return [fields]
    held = f"holds {', '.join(sorted(fields)[:5])}" if fields else "is empty"
    raise RequestError(f"the form {held}; send data=TEXT, or a bare text with 'Content-Type: {_TEXT}'")


def _json(body: Any) -> Any:
    try:
        return json.loads(_text(body))
    except RecursionError as error:
        raise RequestError("the JSON is nested too deep") from error
    except ValueError as error:
        raise RequestError(f"the body is not valid JSON: {error}") from error


def _items(value: Any) -> tuple[list[Any], bool]:
    """Return the items of a JSON body, and whether it holds a list of them."""
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


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, (bytes, bytearray)):
        raise RequestError(f"expected text, got {type(value).__name__}")
    try:
        return value.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(f"the body is not valid UTF-8 (byte {error.start})") from error


def _refuse(context: Any, index: int, error: RequestError) -> bytes:
    """Set a request's status and return the message, in the form that TorchServe's own errors have."""
    context.set_response_status(error.status.value, error.status.phrase, index)
    context.set_response_content_type(index, _JSON)
    name = error.status.phrase.title().replace(" ", "")
    return json.dumps({"code": error.status.value, "type": name, "message": str(error)}).encode()


_handler: Handler | None = None


def handle(requests: Sequence[Mapping[str, Any]] | None, context: Any) -> list[bytes] | None:
    """TorchServe's entry point: called once with no requests to load the model, then with every batch."""
    global _handler  # noqa: PLW0603 - TorchServe gives a function no other place to keep the model
    if _handler is None:
        if config.activity_dir() is not None:  # our own server: TorchServe's two lines for every batch tell it nothing
            logging.getLogger().setLevel(logging.WARNING)
        options = (context.model_yaml_config or {}).get("newsbert", {})
        directory = Path(context.system_properties["model_dir"])
        given = config.served_review_below()
        _handler = Handler(
            directory,
            options.get("model", ""),
            options.get("runtime", "onnxruntime"),
            options.get("workers", 1),
            options.get("review_below") if given is None else given,
        )
    return None if requests is None else _handler.handle(requests, context)
