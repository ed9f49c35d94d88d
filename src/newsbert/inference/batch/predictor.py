"""From the texts of a window to their answers, in their order."""

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Protocol, TypeVar

from newsbert.data import row_columns
from newsbert.data.lines import Row
from newsbert.data.text import NewsItem, preprocess
from newsbert.errors import BadRequestError
from newsbert.inference.batch.readers import Window
from newsbert.inference.prediction import Prediction

CHUNK_ITEMS = 2048
"""Texts given to a model here at once: enough that sorting leaves little padding, few enough that progress is seen."""

REQUEST_ITEMS = 64
"""Texts given to a server at once."""

Answer = Prediction | str
"""A prediction, or why there is none."""

TextColumns = tuple[str | None, str]
"""The columns of title (if any) and text."""

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


class Predictor(Protocol):
    """A model here (`newsbert.Model`) or on a server (`client.Client`)."""

    name: str

    def predict(self, items: Sequence[NewsItem]) -> list[Prediction]:
        """Classify texts or title/text objects, in their order."""
        ...


def _item(row: Row, columns: TextColumns) -> NewsItem:
    """A row as the model takes it.

    Raises:
        ValueError: If it has no text.
    """
    title, column = columns
    text = row_columns.text_of(row, column)
    accepted: NewsItem = text if title is None else {"title": row_columns.text_of(row, title), "text": text}
    preprocess(accepted)
    return accepted


def answer(
    predictor: Predictor,
    window: Window,
    text_columns: TextColumns,
    requests: int,
    on_progress: Callable[[int], None],
) -> list[Answer]:
    """Answer the readable rows of a window; those without text get the reason.

    Args:
        predictor: The model.
        window: The rows.
        text_columns: Where their title (if any) and text are.
        requests: As `score` takes it.
        on_progress: As `score` takes it.
    """
    rows = window.rows
    answers: list[Answer] = [""] * len(rows)
    items: list[NewsItem] = []
    places = []
    for place, row in enumerate(rows):
        try:
            items.append(_item(row, text_columns))
            places.append(place)
        except ValueError as error:
            answers[place] = str(error)
    for place, found in zip(places, score(predictor, items, requests, on_progress) if items else [], strict=True):
        answers[place] = found
    return answers


def score(
    predictor: Predictor, items: Sequence[NewsItem], requests: int, on_progress: Callable[[int], None]
) -> list[Answer]:
    """Answer items, those of like length together.

    Args:
        predictor: The model; where there are several requests, it is asked from as many threads.
        items: Texts or title/text objects that hold text.
        requests: How many to have under way at the same time.
        on_progress: Called with how many are answered.

    Returns:
        For every item its prediction, or the words in which it alone was refused.
    """
    # Longest first: what needs most memory shows at once, and at the end no request is long under way by itself.
    order = sorted(range(len(items)), key=lambda index: -_length(items[index]))
    size = CHUNK_ITEMS if requests == 1 else REQUEST_ITEMS
    chunks = [order[start : start + size] for start in range(0, len(order), size)]
    answers: list[Answer] = [""] * len(items)
    answered = 0
    for chunk, found in _in_threads(lambda chunk: _ask(predictor, [items[index] for index in chunk]), chunks, requests):
        for index, answer in zip(chunk, found, strict=True):
            answers[index] = answer
        answered += len(chunk)
        on_progress(answered)
    return answers


def _length(item: NewsItem) -> int:
    return len(item) if isinstance(item, str) else sum(len(str(value)) for value in item.values())


def _ask(predictor: Predictor, items: Sequence[NewsItem]) -> list[Answer]:
    """Answer items; where a server refuses them, find out which of them it does."""
    try:
        return [*predictor.predict(items)]
    except BadRequestError as error:
        if len(items) == 1:
            return [error.message]
    half = len(items) // 2
    return [*_ask(predictor, items[:half]), *_ask(predictor, items[half:])]


def _in_threads(
    work: Callable[[_Task], _Result], tasks: Sequence[_Task], threads: int
) -> Iterator[tuple[_Task, _Result]]:
    """Yield every task with its result as they are done.

    The threads are daemons, unlike those of `concurrent.futures`: an interrupt must not wait for a server's answer.
    """
    if threads == 1:
        for task in tasks:
            yield task, work(task)
        return
    waiting: SimpleQueue[_Task] = SimpleQueue()
    done: SimpleQueue[tuple[_Task, _Result] | BaseException] = SimpleQueue()
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            try:
                task = waiting.get_nowait()
            except Empty:
                return
            try:
                done.put((task, work(task)))
            except BaseException as error:
                done.put(error)

    for task in tasks:
        waiting.put(task)
    for _ in range(min(threads, len(tasks))):
        threading.Thread(target=run, daemon=True).start()
    try:
        for _ in tasks:
            result = done.get()
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        stop.set()
