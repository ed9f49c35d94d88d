"""Classification of texts that a user typed."""

from collections.abc import Sequence

from newsbert.data.text import NewsItem, preprocess
from newsbert.errors import BadRequestError
from newsbert.inference.batch.predictor import Predictor
from newsbert.inference.prediction import Prediction


def predict_items(predictor: Predictor, items: Sequence[NewsItem]) -> list[Prediction]:
    """Classify texts that a user typed.

    Raises:
        BadRequestError: If an item is not text; the message says which.
    """
    for number, item in enumerate(items, 1):
        try:
            preprocess(item)
        except ValueError as error:
            where = f"text {number}: " if len(items) > 1 else ""
            raise BadRequestError(f"{where}{error}", "give a text with at least one word") from error
    return predictor.predict(items)
