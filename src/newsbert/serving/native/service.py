"""Answers of the native server to parsed requests, whatever protocol they came by."""

import asyncio
import logging
from dataclasses import dataclass, replace
from http import HTTPStatus

import numpy as np

from newsbert.core import cpu
from newsbert.core.types import FloatArray
from newsbert.inference import explanation
from newsbert.inference.explanation import Explanation
from newsbert.inference.prediction import COMPANION, Prediction
from newsbert.inference.runtime import InferenceTimings
from newsbert.serving import batches
from newsbert.serving.explanation_queue import MAX_WAIT_S, Lane, LaneFullError
from newsbert.serving.metrics import STATUSES, Metrics
from newsbert.serving.native.background import BackgroundRuntime
from newsbert.serving.native.scheduler import Job, Scheduler
from newsbert.serving.native.tracing import Stage
from newsbert.serving.requests import (
    ParsedRequest,
    RequestError,
    ask_again,
    make_lane_full_error,
    make_model_failed_error,
    make_not_complete_error,
)
from newsbert.serving.served_model import ServedModel

MAX_WAITING_TOKENS = batches.BATCH_TOKENS
"""Number of waiting tokens above which further requests are refused."""

_THREAD_CHARACTERS = 32 * 1024
"""Length of a request's texts above which they are tokenized in a thread, so that no other request waits for it.

The memory that this took is returned to the system afterwards.
"""

_log = logging.getLogger(__name__)


class OverloadError(RequestError):
    """The error for a request that arrives while too many wait.

    Args:
        retry_after_ms: Milliseconds until the waiting requests are answered.
    """

    def __init__(self, retry_after_ms: int) -> None:
        super().__init__(str(ask_again("too many requests wait")), HTTPStatus.SERVICE_UNAVAILABLE)
        self.retry_after_ms = retry_after_ms


@dataclass(frozen=True)
class Answers:
    """The answers to a request.

    Attributes:
        items: The answers, in the order of the texts.
        probabilities: `(texts, num_labels)`, in the order of the texts.
        num_tokens: Number of tokens of every text that the model read, explained ones excluded.
        stages: What was done for them.
    """

    items: list[Prediction | Explanation]
    probabilities: FloatArray
    num_tokens: list[int]
    stages: tuple[Stage, ...]

    @property
    def predictions(self) -> list[Prediction]:
        """The predictions of all answers."""
        return [item.prediction if isinstance(item, Explanation) else item for item in self.items]


class PredictionService:
    """A served model whose texts are computed by a scheduler. Use it in an event loop.

    Args:
        model: The model.
        metrics: Counts requests and batches.
        queue_size: Maximum number of waiting requests.

    Attributes:
        model: The model.
    """

    def __init__(self, model: ServedModel, metrics: Metrics, queue_size: int) -> None:
        self.model = model
        self._metrics, self._queue_size = metrics, queue_size
        self._num_waiting = 0
        self._lane: Lane[Explanation] = Lane()
        self.scheduler = Scheduler(model.runtime, len(model.labels), metrics.computed_texts)

    async def answer(self, request: ParsedRequest, trace_id: str | None = None) -> Answers:
        """Answer a request.

        Args:
            request: The request.
            trace_id: Id of the client's trace, for the log.

        Raises:
            RequestError: If too much waits already, an explanation is not complete in time, or the model fails.
        """
        self._admit(request)
        self._num_waiting += 1
        try:
            return await self._compute(request)
        except RequestError:
            raise
        except Exception as error:  # any error: every client gets a response, and the log one line
            _log.exception("prediction-failed", extra={"trace_id": trace_id})
            raise make_model_failed_error() from error
        finally:
            self._num_waiting -= 1

    def count(self, status: int, answers: Answers | None = None) -> None:
        """Count an answered request for the metrics."""
        if status not in STATUSES:
            return
        if answers is None:
            self._metrics.requests([status], np.empty((0, len(self.model.labels)), np.float32), [], 0, 0)
            return
        self._metrics.requests(
            [status],
            answers.probabilities,
            answers.num_tokens,
            sum(prediction.review for prediction in answers.predictions),
            sum(prediction.tier == COMPANION for prediction in answers.predictions),
        )

    def _admit(self, request: ParsedRequest) -> None:
        """Refuse a request while too much waits.

        Raises:
            OverloadError: If too much waits.
        """
        cost = sum(map(self.model.runtime.estimate_tokens, request.plain))
        num_tokens = self.scheduler.num_waiting_tokens
        if self._num_waiting >= self._queue_size or (num_tokens and num_tokens + cost > MAX_WAITING_TOKENS):
            raise OverloadError(round(1000 * self.scheduler.estimate_wait_s()))

    async def _compute(self, request: ParsedRequest) -> Answers:
        explanations = {
            index: self._explain(request.sequences[index], label) for index, label in request.explained.items()
        }
        texts = request.plain
        if sum(map(len, texts)) > _THREAD_CHARACTERS:
            job = await self.scheduler.submit_encoded(await asyncio.to_thread(self.model.runtime.encode, texts))
            await asyncio.to_thread(cpu.return_memory)
        else:
            job = await self.scheduler.submit(texts)
        if explanations:
            _, pending = await asyncio.wait(explanations.values(), timeout=MAX_WAIT_S)
            if pending:
                raise make_not_complete_error()
        if texts:
            self._metrics.queued(job.measured.tokenizer_s, max(0.0, job.started_s - job.queued_s))
        predictions = iter(self.model.make_predictions(job.probabilities, job.measured.by_companion))
        items: list[Prediction | Explanation] = [
            explanations[index].result() if index in explanations else next(predictions)
            for index in range(len(request.sequences))
        ]
        answers = Answers(items, job.probabilities, job.measured.tokens, _list_stages(job))
        if not explanations:
            return answers
        probabilities = [list(prediction.probabilities.values()) for prediction in answers.predictions]
        return replace(answers, probabilities=np.array(probabilities, np.float32))

    def _explain(self, text: str, label: str | None) -> "asyncio.Future[Explanation]":
        """Queue an explanation.

        Raises:
            RequestError: If too many explanations wait.
        """

        def compute() -> Explanation:
            runtime = BackgroundRuntime(self.model.runtime, self.scheduler)
            timings = InferenceTimings()
            (prediction,) = self.model.make_predictions(runtime.predict_prepared([text], timings), timings.by_companion)
            return explanation.explain(runtime, text, prediction, label)

        try:
            return asyncio.wrap_future(self._lane.submit((text, label), len(text), compute))
        except LaneFullError:
            raise make_lane_full_error() from None


def _list_stages(job: Job) -> tuple[Stage, ...]:
    """Return when the texts of a request were tokenized, waited, and were computed."""
    started_s = job.started_s or job.queued_s
    return (
        Stage("tokenizer", job.queued_s - job.measured.tokenizer_s, job.queued_s),
        Stage("queue", job.queued_s, started_s),
        Stage("model", started_s, job.ended_s or started_s),
    )
