"""The queue of explanations: predictions go first, complete explanations are cached, and there are bounds."""

import threading
import time
from concurrent.futures import Future

import pytest

from newsbert.serving import explanation_queue
from newsbert.serving.explanation_queue import Lane, LaneClosedError, LaneFullError

TIMEOUT_S = 30


def _block(submitted: Lane[str]) -> tuple[threading.Event, "Future[str]"]:
    """Give the lane an explanation that it computes until the event is set."""
    started, end = threading.Event(), threading.Event()

    def compute() -> str:
        started.set()
        end.wait(TIMEOUT_S)
        return "first"

    future = submitted.submit("first", 1, compute)
    assert started.wait(TIMEOUT_S)
    return end, future


def test_explanations_are_computed_in_order_and_cached() -> None:
    explanations: Lane[str] = Lane()
    end, first = _block(explanations)
    second = explanations.submit("second", 1, lambda: "second")
    assert explanations.submit("second", 1, lambda: "another") is second
    end.set()
    assert (first.result(TIMEOUT_S), second.result(TIMEOUT_S)) == ("first", "second")
    assert explanations.submit("second", 1, lambda: "another").result(TIMEOUT_S) == "second"


def test_a_failed_explanation_is_computed_again() -> None:
    explanations: Lane[str] = Lane()

    def fail() -> str:
        raise RuntimeError("no memory")

    assert str(explanations.submit("text", 1, fail).exception(TIMEOUT_S)) == "no memory"
    assert explanations.submit("text", 1, lambda: "complete").result(TIMEOUT_S) == "complete"


def test_predictions_wait_for_one_step_at_most() -> None:
    explanations: Lane[str] = Lane()
    events: list[str] = []
    started = threading.Event()

    def compute() -> str:
        with explanations.step():
            started.set()
            while explanations._no_answers.is_set():  # until answers are to be computed
                time.sleep(0.001)
            events.append("step 1")
        with explanations.step():
            events.append("step 2")
        return "complete"

    future = explanations.submit("text", 1, compute)
    assert started.wait(TIMEOUT_S)
    with explanations.answering():
        events.append("answers")
    assert future.result(TIMEOUT_S) == "complete"
    assert events == ["step 1", "answers", "step 2"]


def test_a_full_queue_refuses_and_old_results_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explanation_queue, "MAX_WAITING", 2)
    monkeypatch.setattr(explanation_queue, "MAX_RESULTS", 3)
    explanations: Lane[str] = Lane()
    end, first = _block(explanations)
    waiting = [explanations.submit(number, 1, lambda: "complete") for number in range(2)]
    with pytest.raises(LaneFullError):
        explanations.submit("another", 1, lambda: "complete")
    end.set()
    assert [future.result(TIMEOUT_S) for future in [first, *waiting]] == ["first", "complete", "complete"]
    assert explanations.submit("another", 1, lambda: "new").result(TIMEOUT_S) == "new"
    # The first, the oldest, is not there any more; the others are.
    assert explanations.submit(0, 1, lambda: "again").result(TIMEOUT_S) == "complete"
    assert explanations.submit("first", 1, lambda: "again").result(TIMEOUT_S) == "again"


def test_long_texts_are_refused_together_but_not_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explanation_queue, "MAX_CHARACTERS", 10)
    explanations: Lane[str] = Lane()
    end, first = _block(explanations)
    with pytest.raises(LaneFullError):
        explanations.submit("long", 10, lambda: "complete")
    end.set()
    assert first.result(TIMEOUT_S) == "first"
    assert explanations.submit("long", 20, lambda: "complete").result(TIMEOUT_S) == "complete"


def test_a_closed_lane_ends_its_thread_after_a_step() -> None:
    explanations: Lane[str] = Lane()
    in_step, end = threading.Event(), threading.Event()

    def compute() -> str:
        with explanations.step():
            in_step.set()
            end.wait(TIMEOUT_S)
        with explanations.step():
            return "complete"

    running = explanations.submit("running", 1, compute)
    waiting = explanations.submit("waiting", 1, lambda: "complete")
    assert in_step.wait(TIMEOUT_S)
    closing = threading.Thread(target=explanations.close)
    closing.start()
    assert isinstance(waiting.exception(TIMEOUT_S), LaneClosedError)
    end.set()
    assert isinstance(running.exception(TIMEOUT_S), LaneClosedError)
    closing.join(TIMEOUT_S)
    assert not closing.is_alive()  # it waits for the end of the lane's thread
    with pytest.raises(LaneClosedError):
        explanations.submit("another", 1, lambda: "complete")


def test_a_batch_waits_only_while_no_other_waits() -> None:
    explanations: Lane[str] = Lane()
    end, first = _block(explanations)
    looks = iter([False, False, True])
    explanation_queue.wait([first], lambda: next(looks))
    assert not first.done()
    assert list(looks) == []
    end.set()
    explanation_queue.wait([first], lambda: False)
    assert first.result(0) == "first"
