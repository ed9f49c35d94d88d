"""Traces of the native server, as a collector of OpenTelemetry gets them."""

import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psutil
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support import processes
from tests.support.serving import PATH, Start

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def collector() -> Iterator[tuple[str, list[Any]]]:
    """The endpoint of a collector, and the spans that it got."""
    spans: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
            for resource in request.resource_spans:
                attributes = {entry.key: entry.value.string_value for entry in resource.resource.attributes}
                for scope in resource.scope_spans:
                    spans.extend((attributes["service.name"], span) for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}", spans
        http.shutdown()
        thread.join()


def test_a_request_is_a_span_of_its_clients_trace(start: Start, collector: tuple[str, list[Any]]) -> None:
    endpoint, spans = collector
    served = start("--server", "native", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
    headers = {"Content-Type": "text/plain", "traceparent": f"00-{TRACE}-{PARENT}-01"}
    with urllib.request.urlopen(urllib.request.Request(served.url + PATH, b"goal", headers), timeout=30) as response:
        assert response.status == 200
    assert served.stop() == 0  # which exports what is left
    by_name = {span.name: (service, span) for service, span in spans}
    service, root = by_name.pop(f"POST {PATH}")
    assert service == "newsbert"
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == (TRACE, PARENT)
    attributes = {entry.key: entry.value for entry in root.attributes}
    assert attributes["http.response.status_code"].int_value == 200
    assert attributes["newsbert.model"].string_value == served.ready["model"]
    assert set(by_name) == {"queue", "tokenizer", "model"}
    for _, span in by_name.values():
        assert (span.trace_id, span.parent_span_id) == (root.trace_id, root.span_id)
        assert root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= root.end_time_unix_nano


def test_without_an_endpoint_nothing_of_it_is_loaded(start: Start) -> None:
    served = start("--server", "native")
    (worker,) = processes.with_command("newsbert.serving.native.worker", processes.children(served.process.pid))
    mapped = {file.path for file in psutil.Process(worker.pid).memory_maps()}
    assert any("onnxruntime" in path for path in mapped)
    assert not any("grpc" in path or "opentelemetry" in path for path in mapped)
