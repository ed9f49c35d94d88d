"""The scheduler of the native server: every text gets its own answer, and no core waits while texts do."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsbert.core.types import FloatArray
from newsbert.inference.runtime import EncodedTexts
from newsbert.serving.native.scheduler import Scheduler, select_texts


class Cores:
    """A runtime of two cores: it answers a text with its number of tokens, which is its length."""

    independent_cores = 2

    def __init__(self, before: Callable[[int, bool], None] = lambda num_texts, all_cores: None) -> None:
        self._before = before
        self.batches: list[tuple[int, bool]] = []
        self.threads: set[str] = set()

    def encode(self, sequences: Sequence[str]) -> EncodedTexts:
        is_sure = np.array([sequence.startswith("sure") for sequence in sequences], np.bool_)
        ids = [[] if sure else [1] * len(sequence) for sequence, sure in zip(sequences, is_sure, strict=True)]
        return EncodedTexts(ids, np.zeros((len(ids), 2), np.float32), is_sure)

    def compute(
        self, ids: Sequence[Sequence[int]], companion: FloatArray | None = None, *, all_cores: bool
    ) -> FloatArray:
        assert companion is not None
        assert companion.shape == (len(ids), 2)
        self.batches.append((len(ids), all_cores))
        self.threads.add(threading.current_thread().name)
        self._before(len(ids), all_cores)
        return np.array([[len(text), 0] for text in ids], np.float32)


def _run(cores: Any, requests: Sequence[Sequence[str]]) -> list[Any]:
    async def main() -> list[Any]:
        scheduler = Scheduler(cores, 2)
        try:
            jobs = await asyncio.wait_for(
                asyncio.gather(*map(scheduler.submit, requests), return_exceptions=True), timeout=60
            )
        finally:
            scheduler.close()
        assert scheduler.num_waiting_tokens == 0
        return jobs

    return asyncio.run(main())


@given(st.lists(st.lists(st.integers(1, 300).map("x".__mul__), max_size=40), min_size=1, max_size=30))
def test_every_request_gets_the_answers_to_its_texts_in_order(requests: list[list[str]]) -> None:
    jobs = _run(Cores(), requests)
    assert [job.probabilities[:, 0].tolist() for job in jobs] == [[len(text) for text in texts] for texts in requests]
    assert [job.measured.tokens for job in jobs] == [[len(text) for text in texts] for texts in requests]


def test_a_single_text_is_computed_with_all_cores_in_the_thread_of_the_event_loop() -> None:
    cores = Cores()
    _run(cores, [["alone"]])
    assert cores.batches == [(1, True)]
    assert cores.threads == {threading.current_thread().name}


def test_a_text_that_the_companion_answers_waits_for_no_core() -> None:
    cores = Cores(lambda num_texts, all_cores: pytest.fail("computed"))
    (job,) = _run(cores, [["sure", "surely"]])
    assert job.probabilities.tolist() == [[1, 1], [1, 1]]
    assert (job.measured.tokens, job.measured.by_companion) == ([], [True, True])
    cores = Cores()
    jobs = _run(cores, [["sure", "text"], ["sure"], ["longer text"]])
    assert [job.probabilities[:, 0].tolist() for job in jobs] == [[1, 4], [1], [11]]
    assert sum(num_texts for num_texts, _ in cores.batches) == 2


def test_several_texts_are_computed_on_all_cores_at_the_same_time() -> None:
    together = threading.Barrier(2)

    def meet(num_texts: int, all_cores: bool) -> None:
        together.wait(timeout=30)  # breaks unless both cores come

    cores = Cores(meet)
    _run(cores, [["x" * 512], ["y" * 512]])
    assert sorted(cores.batches) == [(1, False), (1, False)]


def test_a_core_takes_what_waits_as_soon_as_it_is_free() -> None:
    third = threading.Event()

    def wait(num_texts: int, all_cores: bool) -> None:
        number = len(cores.batches)
        if number == 1:  # it ends only after the other core has taken two batches
            assert third.wait(30)
        if number == 3:
            third.set()

    cores = Cores(wait)
    jobs = _run(cores, [["x" * 256], ["y" * 256], ["z" * 256]])
    assert [job.probabilities[0, 0] for job in jobs] == [256] * 3


def test_an_error_is_that_of_the_requests_of_its_batch_alone() -> None:
    class Failing(Cores):
        def compute(
            self, ids: Sequence[Sequence[int]], companion: FloatArray | None = None, *, all_cores: bool
        ) -> FloatArray:
            if max(map(len, ids)) == 300:
                raise MemoryError("too long")
            return super().compute(ids, companion, all_cores=all_cores)

    failed, *answered = _run(Failing(), [["x" * 300], ["y" * 100, "z" * 100]])
    assert isinstance(failed, MemoryError)
    assert answered[0].probabilities[:, 0].tolist() == [100, 100]


def test_texts_in_the_background_wait_for_those_of_requests() -> None:
    order: list[int] = []
    ready = threading.Event()

    def note(num_texts: int, all_cores: bool) -> None:
        order.append(num_texts)
        if len(order) <= 2:
            assert ready.wait(30)

    cores = Cores(note)

    async def main() -> None:
        scheduler = Scheduler(cores, 2)  # type: ignore[arg-type]
        background = asyncio.get_running_loop().run_in_executor(
            None, scheduler.compute_in_background, cores.encode(["b" * 90] * 6)
        )
        request = scheduler.submit(["x" * 120] * 8)
        while len(order) < 2:
            await asyncio.sleep(0.001)
        ready.set()
        job = await asyncio.wait_for(request, 30)
        assert job.probabilities[:, 0].tolist() == [120] * 8
        assert (await asyncio.wait_for(background, 30)).probabilities[:, 0].tolist() == [90] * 6
        scheduler.close()

    asyncio.run(main())


def test_a_cancelled_request_stops_no_other() -> None:
    async def main() -> None:
        scheduler = Scheduler(Cores(), 2)  # type: ignore[arg-type]
        abandoned = scheduler.submit(["x" * 200] * 3)
        await asyncio.sleep(0)
        abandoned.cancel()
        job = await asyncio.wait_for(scheduler.submit(["y"]), 30)
        assert job.probabilities[:, 0].tolist() == [1]
        scheduler.close()

    asyncio.run(main())


def test_a_batch_that_ends_after_the_event_loop_is_an_error_nowhere() -> None:
    started, closed = threading.Event(), threading.Event()

    def wait(num_texts: int, all_cores: bool) -> None:
        started.set()
        assert closed.wait(30)

    async def main() -> None:
        scheduler = Scheduler(Cores(wait), 2)  # type: ignore[arg-type]
        scheduler.submit(["x", "y"])
        while not started.is_set():
            await asyncio.sleep(0.001)
        scheduler.close()

    asyncio.run(main())
    closed.set()
    for thread in threading.enumerate():
        if thread.name.startswith("core-"):
            thread.join(30)  # pytest reports an exception in a thread


@given(st.lists(st.integers(1, 400), min_size=1, max_size=64), st.integers(128, 256))
def test_a_batch_has_the_first_text_and_fits_its_budget(num_tokens: list[int], budget: int) -> None:
    chosen = select_texts(num_tokens, budget)
    assert 0 in chosen
    assert len(set(chosen)) == len(chosen)
    longest = max(num_tokens[index] for index in chosen)
    assert len(chosen) == 1 or longest * len(chosen) <= budget
    if len(chosen) == 1:  # no neighbour fits
        others = sorted(num_tokens[1:], key=lambda tokens: abs(tokens - num_tokens[0]))
        assert all(2 * max(tokens, num_tokens[0]) > budget or tokens != num_tokens[0] for tokens in others)


@pytest.mark.parametrize(
    ("num_tokens", "expected"),
    [([50], [0]), ([10, 10, 10], [0, 1, 2]), ([40, 200, 41, 39, 42], [0, 2, 3, 4]), ([300, 1, 2], [0])],
)
def test_texts_of_about_the_same_length_are_computed_together(num_tokens: list[int], expected: list[int]) -> None:
    assert sorted(select_texts(num_tokens, 170)) == expected
