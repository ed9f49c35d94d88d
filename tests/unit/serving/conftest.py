"""A handler of the tiny model, and what it should answer."""

from collections.abc import Callable
from typing import Any

import pytest

import newsbert
from newsbert.data.text import NewsItem
from newsbert.inference.model import Model
from newsbert.serving.handler import Handler


@pytest.fixture(scope="module")
def handler(trained: tuple[newsbert.TrainResult, str]) -> Handler:
    return Handler(trained[0].bundle, "TinyModel/1")


@pytest.fixture(scope="module")
def expect(trained: tuple[newsbert.TrainResult, str]) -> Callable[[NewsItem], Any]:
    """The answer that PyTorch gives for an item, to compare with one of the handler's."""
    model = Model.from_directory(trained[0].bundle, runtime="torch")

    def expected(item: NewsItem) -> dict[str, Any]:
        (prediction,) = model.predict([item])
        return {
            "label": prediction.label,
            "score": pytest.approx(prediction.score, abs=1e-3),
            "review": prediction.review,
            "probabilities": pytest.approx(prediction.probabilities, abs=1e-3),
        }

    return expected
