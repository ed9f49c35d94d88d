"""The handler that runs inside TorchServe, and answers the requests of a batch independently.

TorchServe passes a batch of requests to `handle`. An invalid request gets a 4xx status with a message, and does not
affect the others. The texts of all valid requests go through the runtime together. Bodies arrive as bytes, since the
server is configured with `decode_input_request=false`: otherwise TorchServe would decode JSON itself, and pass invalid
JSON on as text. A TorchServe that newsbert did not start may still do so, so the handler accepts decoded bodies too.
"""

import functools
import json
import logging
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast

import numpy as np

from newsbert.bundle.bundle import AUTO
from newsbert.core import config, cpu, environment
from newsbert.core.types import FloatArray
from newsbert.inference import explanation
from newsbert.inference.explanation import Explanation
from newsbert.inference.prediction import Prediction
from newsbert.inference.runtime import InferenceTimings
from newsbert.serving import batches, explanation_queue
from newsbert.serving.archive import CONFIG_NAME
from newsbert.serving.explanation_queue import Lane, LaneFullError
from newsbert.serving.heartbeat import Heartbeat
from newsbert.serving.metrics import Metrics
from newsbert.serving.protocol import MODEL_HEADER
from newsbert.serving.requests import (
    ParsedRequest,
    RequestError,
    make_lane_full_error,
    make_model_failed_error,
    make_not_complete_error,
)
from newsbert.serving.responses import refuse, render
from newsbert.serving.served_model import ServedModel
from newsbert.serving.torchserve import job_queue
from newsbert.serving.torchserve.log_events import report_event

_LARGE_BYTES = 1024 * 1024
"""Size of a batch's bodies above which freed memory is returned to the system afterwards."""


@dataclass(frozen=True)
class _Explained:
    """An explanation of the lane, with the timings of its prediction."""

    explanation: Explanation
    measured: InferenceTimings

    @property
    def prediction(self) -> Prediction:
        return self.explanation.prediction

    @property
    def review(self) -> bool:
        return self.prediction.review

    def to_dict(self, *, tier: bool = False) -> dict[str, object]:
        return self.explanation.to_dict(tier=tier)


class Handler:
    """A loaded model that answers batches of TorchServe's requests.

    Args:
        directory: The unpacked archive.
        name: The model's name in answers, such as `BertModel/7`.
        runtime: Name of the runtime.
        workers: Number of workers that divide this machine's cores.
        review_threshold: The score below which an answer needs a review; the contract's if `None`.
        cascade: Whether the companion answers texts alone; see `resolve_cascade`.

    Raises:
        ModelError: If the archive was altered, or its answers differ from those in training.
    """

    def __init__(
        self,
        directory: Path,
        name: str = "",
        runtime: str = "onnxruntime",
        workers: int = 1,
        review_threshold: float | None = None,
        cascade: str = AUTO,
    ) -> None:
        self._model = ServedModel(
            directory, name, runtime, max(1, cpu.cores() // workers), review_threshold, cascade=cascade
        )
        self._lane: Lane[_Explained] = Lane()
        self._server_dir = environment.server_dir()
        self._activity = Heartbeat(environment.activity_dir())
        self._metrics = Metrics(environment.metrics_dir(), name, self._model.labels)

    def handle(self, requests: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """Answer a batch.

        Args:
            requests: Parameters of every request by name, `body` for a raw body.
            context: TorchServe's context; it has the request headers, and takes status and response headers.

        Returns:
            One body per request.
        """
        if self._activity.closing:
            closing = RequestError("this server is stopping", HTTPStatus.SERVICE_UNAVAILABLE)
            return self._refuse_all(requests, context, closing)
        try:
            with self._activity.answering():
                return self._answer(requests, context)
        except Exception as error:  # any error: every client gets a response, and the log one line
            report_event("prediction-failed", f"{type(error).__name__}: {error}", len(requests), traceback.format_exc())
            return self._refuse_all(requests, context, make_model_failed_error())

    def close(self) -> None:
        """End the thread of explanations."""
        self._lane.close()

    def _refuse_all(self, requests: Sequence[Mapping[str, Any]], context: Any, error: RequestError) -> list[bytes]:
        self._metrics.batch(
            [error.status] * len(requests), np.empty((0, len(self._model.labels)), np.float32), InferenceTimings()
        )
        return [refuse(context, index, error) for index in range(len(requests))]

    def _answer(self, requests: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        headers = [
            {str(key).lower(): value for key, value in context.get_all_request_header(index).items()}
            for index in range(len(requests))
        ]
        timings = InferenceTimings()
        with self._lane.answering():
            parsed = batches.parse(requests, headers, self._model.runtime, self._model.labels)
            plain = [text for request in parsed if isinstance(request, ParsedRequest) for text in request.plain]
            probabilities = self._model.runtime.predict_prepared(plain, timings)
        predictions = iter(self._model.make_predictions(probabilities, timings.by_companion))
        started = [
            self._start_answers(request, [next(predictions) for _ in request.plain])
            if isinstance(request, ParsedRequest)
            else request
            for request in parsed
        ]
        self._wait_for_explanations(started, context.model_name)
        outcomes = [answers if isinstance(answers, RequestError) else _collect_results(answers) for answers in started]
        bodies = []
        for index, outcome in enumerate(outcomes):
            context.set_response_header(index, MODEL_HEADER, self._model.header)
            if isinstance(outcome, RequestError):
                bodies.append(refuse(context, index, outcome))
            else:
                many = cast("ParsedRequest", parsed[index]).many
                content_type, body = render(outcome, many, headers[index])
                context.set_response_content_type(index, content_type)
                bodies.append(body)
        if sum(map(batches.count_bytes, requests)) > _LARGE_BYTES:
            cpu.return_memory()
        self._count_batch(outcomes, probabilities, timings)
        return bodies

    def _start_answers(
        self, request: ParsedRequest, predictions: Iterable[Prediction]
    ) -> "list[Prediction | Future[_Explained]] | RequestError":
        """Return a request's answers, with futures for explanations, or the error if the lane is full.

        Args:
            request: The request.
            predictions: Those for its texts without explanation.
        """
        remaining = iter(predictions)
        answers: list[Prediction | Future[_Explained]] = []
        for index, text in enumerate(request.sequences):
            if index in request.explained:
                label = request.explained[index]
                compute = functools.partial(self._explain, text, label)
                try:
                    answers.append(self._lane.submit((text, label), len(text), compute))
                except LaneFullError:
                    return make_lane_full_error()
            else:
                answers.append(next(remaining))
        return answers

    def _explain(self, text: str, label: str | None) -> "_Explained":
        timings = InferenceTimings()
        with self._lane.step():
            probabilities = self._model.runtime.predict_prepared([text], timings)
        (prediction,) = self._model.make_predictions(probabilities, timings.by_companion)
        result = explanation.explain(self._model.runtime, text, prediction, label, self._lane.step)
        return _Explained(result, timings)

    def _wait_for_explanations(
        self, started: "Sequence[list[Prediction | Future[_Explained]] | RequestError]", model_name: str
    ) -> None:
        """Wait for the explanations of a batch, while no other request waits for an answer."""
        futures = [list(_iterate_futures(answers)) for answers in started]
        if any(futures):
            all_explained = all(futures)
            explanation_queue.wait(
                [future for request_futures in futures for future in request_futures],
                lambda: not all_explained or self._has_pending_requests(model_name),
            )

    def _has_pending_requests(self, model_name: str) -> bool:
        """Return whether another request waits; false for a server that newsbert did not start, where it is unknown."""
        if self._server_dir is None:
            return False
        num_pending = job_queue.count_pending(self._server_dir, model_name)
        return num_pending is None or num_pending > 0

    def _count_batch(
        self,
        outcomes: "Sequence[list[Prediction | _Explained] | RequestError]",
        probabilities: FloatArray,
        measured: InferenceTimings,
    ) -> None:
        """Count a batch for the metrics, explained answers included."""
        answers = [answer for outcome in outcomes if isinstance(outcome, list) for answer in outcome]
        for answer in answers:
            if isinstance(answer, _Explained):
                row = np.array([list(answer.prediction.probabilities.values())], probabilities.dtype)
                probabilities = np.concatenate([probabilities, row])
                measured.add(answer.measured)
        statuses = [outcome.status if isinstance(outcome, RequestError) else HTTPStatus.OK for outcome in outcomes]
        self._metrics.batch(statuses, probabilities, measured, sum(answer.review for answer in answers))


def _iterate_futures(answers: "list[Prediction | Future[_Explained]] | RequestError") -> "Iterator[Future[_Explained]]":
    if isinstance(answers, list):
        yield from (answer for answer in answers if isinstance(answer, Future))


def _collect_results(
    answers: "list[Prediction | Future[_Explained]]",
) -> "list[Prediction | _Explained] | RequestError":
    """Return the answers with their explanations, or the error if an explanation failed or is incomplete."""
    if not all(future.done() for future in _iterate_futures(answers)):
        return make_not_complete_error()
    for error in filter(None, (future.exception() for future in _iterate_futures(answers))):
        report_event(
            "prediction-failed", f"{type(error).__name__}: {error}", 1, "".join(traceback.format_exception(error))
        )
        return make_model_failed_error()
    return [answer.result() if isinstance(answer, Future) else answer for answer in answers]


def _read_configuration(directory: Path) -> dict[str, Any]:
    """Read the configuration file, which TorchServe ignores if mlflow-torchserve's manifest does not name it."""
    file = directory / CONFIG_NAME
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


_handler: Handler | None = None


def handle(requests: Sequence[Mapping[str, Any]] | None, context: Any) -> list[bytes] | None:
    """Load the model on the first call, which has no requests, then answer batches: TorchServe's entry point."""
    global _handler  # noqa: PLW0603 - TorchServe gives a function no other place to keep the model
    if _handler is None:
        if environment.activity_dir() is not None:  # newsbert's own server does not read TorchServe's lines per batch
            logging.getLogger().setLevel(logging.WARNING)
        directory = Path(context.system_properties["model_dir"])
        options = (context.model_yaml_config or _read_configuration(directory)).get("newsbert", {})
        review_threshold = config.served_review_threshold()
        _handler = Handler(
            directory,
            options.get("model", ""),
            options.get("runtime", "onnxruntime"),
            options.get("workers", 1),
            options.get("review_threshold") if review_threshold is None else review_threshold,
            config.served_cascade() or options.get("cascade", AUTO),
        )
    return None if requests is None else _handler.handle(requests, context)
