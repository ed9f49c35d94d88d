"""What of a server's log is a problem, and what an operator reads of it."""

import json
import logging
from typing import Any

import pytest

from newsbert.serving.server_events import REPEAT_S, ServerEvent
from newsbert.serving.torchserve.log_events import LogMonitor, LogRecord, report_event

THREAD = "W-9000-news_classification_1.0-stdout"


class Watch:
    """The events of log records, by a clock that is set by hand."""

    def __init__(self) -> None:
        self.events: list[ServerEvent] = []
        self.now = 0.0
        self.problems = LogMonitor(self.events.append, lambda: self.now)
        self.problems.started = True

    def read(self, message: str, level: str = "INFO", logger: str = "MODEL_LOG", exception: str = "") -> None:
        fields = {"time": "t", "level": level, "logger": logger, "thread": THREAD, "message": message}
        self.problems.read(LogRecord.parse(json.dumps({**fields, "exception": exception})))


@pytest.fixture
def watch() -> Watch:
    return Watch()


def _raise(watch: Watch, *lines: str) -> None:
    for line in ("Traceback (most recent call last):", '  File "x.py", line 1, in f', "    f()", *lines):
        watch.read(line)


def test_a_complete_traceback_is_one_event(watch: Watch) -> None:
    watch.read("Backend worker process died.")
    _raise(watch, "ValueError: no", "", "The above exception was the direct cause of the following exception:", "")
    _raise(watch, "ModelError: no model")
    assert watch.events == []
    watch.read("something else")
    (problem,) = watch.events
    assert (problem.event, problem.message) == ("worker-failed", "ModelError: no model")
    assert problem.details["worker"] == "W-9000-news_classification_1.0"
    assert problem.details["traceback"].count("Traceback") == 2


def test_a_traceback_is_complete_after_a_pause(watch: Watch) -> None:
    _raise(watch, "ValueError: no")
    watch.problems.flush()
    assert watch.events == []
    watch.now = 1.0
    watch.problems.flush()
    assert [event.message for event in watch.events] == ["ValueError: no"]
    watch.problems.flush(at_once=True)
    assert len(watch.events) == 1


def test_an_event_of_a_worker_is_one_line_of_json(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        report_event("prediction-failed", "RuntimeError: é\nand more", 3, "Traceback\n  File")
    (line,) = [record.getMessage() for record in caplog.records]
    assert "\n" not in line
    watch.read(line)
    (problem,) = watch.events
    assert problem.details["requests"] == 3
    document: dict[str, Any] = json.loads(problem.json())
    assert document["event"] == "prediction-failed"
    assert document["message"] == "RuntimeError: é\nand more"
    assert document["traceback"] == "Traceback\n  File"
    assert "\n" not in problem.json() + problem.text()
    assert "requests=3" in problem.text()
    assert "Traceback" not in problem.text()


def test_a_worker_that_dies_after_the_start_is_an_event(watch: Watch) -> None:
    watch.problems.started = False
    watch.read("Retry worker: 9000 in 1 seconds.", logger="WorkerThread")
    assert watch.events == []
    watch.problems.started = True
    watch.read("Retry worker: 9000 in 1 seconds.", logger="WorkerThread")
    assert [event.event for event in watch.events] == ["worker-died"]


@pytest.mark.parametrize(
    ("logger", "exception", "reported"),
    [
        ("HttpRequestHandler", "io.netty.handler.codec.http.ErrorDataDecoderException: Bad string\n\tat x", False),
        ("HttpRequestHandler", " io.netty.channel.unix.Errors$NativeIoException: reset by peer", False),
        ("HttpRequestHandler", "java.lang.OutOfMemoryError: Java heap space\n\tat x", True),
        ("WorkerThread", "io.netty.channel.unix.Errors$NativeIoException: reset by peer", True),
        ("WorkerThread", "", True),
    ],
)
def test_broken_requests_are_no_events(watch: Watch, logger: str, exception: str, reported: bool) -> None:
    watch.read("it failed", "ERROR", logger, exception)
    assert bool(watch.events) is reported
    if reported:
        first = exception.partition("\n")[0]
        assert watch.events[0].message == (f"it failed: {first}" if first else "it failed")


def test_messages_of_the_jvm_are_events(watch: Watch) -> None:
    watch.problems.read(LogRecord.parse("WARNING: sun.reflect.Reflection.getCallerClass is not supported."))
    watch.problems.read(LogRecord.parse("[1, 2]"))
    assert watch.events == []
    watch.problems.read(LogRecord.parse('Exception in thread "main" java.lang.OutOfMemoryError: Java heap space'))
    assert [event.event for event in watch.events] == ["java"]


def test_consequences_of_a_worker_death_are_no_events(watch: Watch) -> None:
    watch.read("Load model failed: news_classification, error: Worker died.", "WARN", "BatchAggregator")
    watch.read("Auto recovery failed again", "WARN", "WorkerThread")
    assert watch.events == []


def test_repeated_events_are_counted(watch: Watch) -> None:
    for _ in range(5):
        watch.read("full", "WARN", "Queue")
    watch.read("empty", "WARN", "Queue")
    assert [event.message for event in watch.events] == ["full", "empty"]
    watch.now = REPEAT_S
    watch.read("full", "WARN", "Queue")
    assert watch.events[-1].details["repeated"] == 4


def test_text_lines_are_readable() -> None:
    fields = {"time": "t", "level": "WARN", "logger": "Q", "thread": "x", "message": "m", "exception": "E\n\tat x\n"}
    assert LogRecord.parse(json.dumps(fields)).text == "t WARN  Q m\nE\n\tat x"
    assert LogRecord.parse("Model server started.").text == "Model server started."
