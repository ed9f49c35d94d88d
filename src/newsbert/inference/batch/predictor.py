"""Predictions for the texts of a window, in their order."""

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Protocol, TypeVar

from newsbert.data import row_columns
from newsbert.data.lines import Row
from newsbert.data.text import NewsItem, TextError, preprocess
from newsbert.errors import BadRequestError
from newsbert.inference.batch.readers import Window
from newsbert.inference.prediction import Prediction

CHUNK_ITEMS = 2048
"""Texts per call of a model here: enough that sorting leaves little padding, few enough that progress is visible."""

REQUEST_ITEMS = 64
"""Texts per request to a server."""

Answer = Prediction | str
"""A prediction, or the reason why there is none."""

TextColumns = tuple[str | None, str]
"""The columns of title (if any) and text."""

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


class Predictor(Protocol):
    """A model here (`newsbert.Model`) or on a server (`client.Client`)."""

    name: str

    def predict(self, items: Sequence[NewsItem]) -> list[Prediction]:
        """Classify texts or title/text objects; return the predictions in input order.

        Raises:
            TextError, BadRequestError: If an item is no text for the model here, or for the one on the server.
        """
        ...


def _to_item(row: Row, columns: TextColumns) -> NewsItem:
    """Convert a row to an item for the model.

    Raises:
        ValueError: If the row has no text.
    """
    title, column = columns
    text = row_columns.text_of(row, column)
    return text if title is None else {"title": row_columns.text_of(row, title), "text": text}


def answer(
    predictor: Predictor,
    window: Window,
    text_columns: TextColumns,
    requests: int,
    on_progress: Callable[[int], None],
) -> list[Answer]:
    """Classify the readable rows of a window; those without text get the reason.

    Args:
        predictor: The model.
        window: The rows.
        text_columns: Columns of their title (if any) and text.
        requests: As `score` takes it.
        on_progress: As `score` takes it.
    """
    rows = window.rows
    answers: list[Answer] = [""] * len(rows)
    items: list[NewsItem] = []
    positions = []
    for position, row in enumerate(rows):
        try:
            items.append(_to_item(row, text_columns))
            positions.append(position)
        except ValueError as error:
            answers[position] = str(error)
    for position, result in zip(positions, score(predictor, items, requests, on_progress), strict=True):
        answers[position] = result
    return answers


def score(
    predictor: Predictor, items: Sequence[NewsItem], requests: int, on_progress: Callable[[int], None]
) -> list[Answer]:
    """Classify items, those of similar length together.

    Args:
        predictor: The model; with several requests, it is called from as many threads.
        items: Texts or title/text objects. The model cleans them by its own rules, so only the model knows which of
            them have text.
        requests: Number of concurrent requests.
        on_progress: Called with the number of items that are done.

    Returns:
        For every item its prediction, or the error message with which it was rejected.
    """
    answers: list[Answer] = [_find_fault(item) for item in items]
    # Longest first: a lack of memory shows at once, and no long request runs alone at the end.
    readable = [index for index, fault in enumerate(answers) if not fault]
    order = sorted(readable, key=lambda index: -_length(items[index]))
    size = CHUNK_ITEMS if requests == 1 else REQUEST_ITEMS
    chunks = [order[start : start + size] for start in range(0, len(order), size)]
    answered = 0
    for chunk, results in _run_in_threads(
        lambda chunk: _predict(predictor, [items[index] for index in chunk]), chunks, requests
    ):
        for index, answer in zip(chunk, results, strict=True):
            answers[index] = answer
        answered += len(chunk)
        on_progress(answered)
    return answers


def _find_fault(item: NewsItem) -> str:
    """Return why no model can classify an item, or an empty string: such an item is not sent to a server."""
    try:
        preprocess(item, rules=())
    except TextError as error:
        return str(error)
    return ""


def _length(item: NewsItem) -> int:
    return len(item) if isinstance(item, str) else sum(len(str(value)) for value in item.values())


def _predict(predictor: Predictor, items: Sequence[NewsItem]) -> list[Answer]:
    """Classify items; if the model rejects them, find out which of them it rejects."""
    try:
        return [*predictor.predict(items)]
    except (BadRequestError, TextError) as error:
        if len(items) == 1:
            return [str(error)]
    half = len(items) // 2
    return [*_predict(predictor, items[:half]), *_predict(predictor, items[half:])]


def _run_in_threads(
    work: Callable[[_Task], _Result], tasks: Sequence[_Task], threads: int
) -> Iterator[tuple[_Task, _Result]]:
    """Yield every task with its result in order of completion.

    The threads are daemons, unlike those of `concurrent.futures`: an interrupt must not wait for a server's response.
    """
    if threads == 1:
        for task in tasks:
            yield task, work(task)
        return
    pending: SimpleQueue[_Task] = SimpleQueue()
    done: SimpleQueue[tuple[_Task, _Result] | BaseException] = SimpleQueue()
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            try:
                task = pending.get_nowait()
            except Empty:
                return
            try:
                done.put((task, work(task)))
            except BaseException as error:
                done.put(error)

    for task in tasks:
        pending.put(task)
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
