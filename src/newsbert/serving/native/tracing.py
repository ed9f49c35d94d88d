"""OpenTelemetry traces of requests: a span per request, and within it the queue, the tokenizer and the model.

OpenTelemetry's own variables configure the export, such as `OTEL_EXPORTER_OTLP_ENDPOINT` and `OTEL_SERVICE_NAME`.
Without an endpoint, nothing of it is imported. A request's `traceparent` continues the client's trace.

Source: https://opentelemetry.io/docs/specs/semconv/http/http-spans/; https://www.w3.org/TR/trace-context/.
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from newsbert.core.installation import MissingExtraError
from newsbert.core.version import __version__

SERVICE_NAME = "newsbert"

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True)
class Stage:
    """A part of the work on a request.

    Attributes:
        name: `queue`, `tokenizer` or `model`.
        started_s: Monotonic time of its begin.
        ended_s: Monotonic time of its end.
    """

    name: str
    started_s: float
    ended_s: float


class Tracer:
    """An exporter of spans.

    Args:
        model: The model's name in answers.

    Raises:
        MissingExtraError: If OpenTelemetry is not installed.
    """

    def __init__(self, model: str) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise MissingExtraError("opentelemetry", "otel") from error
        self._model, self._trace = model, trace
        self._propagator = TraceContextTextMapPropagator()
        resource = Resource.create()  # of OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
        if str(resource.attributes["service.name"]).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": SERVICE_NAME, "service.version": __version__}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("newsbert.serving.native", __version__)

    def record(
        self, method: str, path: str, status: int, started_s: float, headers: Mapping[str, str], stages: Sequence[Stage]
    ) -> None:
        """Record an answered request.

        Args:
            method: Its method.
            path: Its path.
            status: HTTP status of the answer.
            started_s: Monotonic time when its headers were complete.
            headers: Its headers.
            stages: What was done for it.
        """
        offset_ns = time.time_ns() - time.monotonic_ns()

        def to_ns(monotonic_s: float) -> int:
            return offset_ns + round(monotonic_s * 1e9)

        span = self._tracer.start_span(
            f"{method} {path}",
            context=self._propagator.extract(headers),
            kind=self._trace.SpanKind.SERVER,
            start_time=to_ns(started_s),
            attributes={
                "http.request.method": method,
                "url.path": path,
                "http.response.status_code": status,
                "newsbert.model": self._model,
            },
        )
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            span.set_status(self._trace.StatusCode.ERROR)
        context = self._trace.set_span_in_context(span)
        for stage in stages:
            child = self._tracer.start_span(stage.name, context=context, start_time=to_ns(stage.started_s))
            child.end(to_ns(stage.ended_s))
        span.end()

    def close(self) -> None:
        """Export what is left."""
        self._provider.shutdown()


def parse_trace_id(headers: Mapping[str, str]) -> str | None:
    """Return the id of the client's trace in the header `traceparent`, if there is a valid one."""
    match = _TRACEPARENT.fullmatch(headers.get("traceparent", ""))
    return match["trace"] if match else None
