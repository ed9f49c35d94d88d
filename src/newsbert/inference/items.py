"""Classification of texts that a user typed."""

from collections.abc import Sequence

from newsbert.data.text import NewsItem
from newsbert.errors import BadRequestError
from newsbert.inference.batch.predictor import Predictor, score
from newsbert.inference.prediction import Prediction


def predict_items(predictor: Predictor, items: Sequence[NewsItem]) -> list[Prediction]:
    """Classify texts that a user typed.

    Raises:
        BadRequestError: If the model rejects an item; the message says which.
    """
    predictions = []
    for number, answer in enumerate(score(predictor, items, 1, lambda _: None), 1):
        if isinstance(answer, str):
            where = f"text {number}: " if len(items) > 1 else ""
            raise BadRequestError(f"{where}{answer}", "give another text, with at least one word")
        predictions.append(answer)
    return predictions
