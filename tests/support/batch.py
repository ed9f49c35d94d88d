"""A model for batch inference that answers by the length of a text, and what it should answer."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from newsbert.data import readers
from newsbert.data.text import NewsItem, preprocess
from newsbert.errors import ServingError
from newsbert.inference.batch.predict_file import ANSWER_COLUMNS, BatchResult, predict_file
from newsbert.inference.prediction import Prediction

relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)

KINDS = ("csv", "tsv", "json", "jsonl", "parquet")
OUTPUT_KINDS = ("csv", "tsv", "jsonl", "parquet")

LABELS = ("Économie", "Sport & loisirs", "World")


def answer_of(text: str) -> dict[str, object]:
    """The answer that the tests' model gives for a prepared text: a class by the text's length."""
    weights = [1.0, 1.0, 1.0]
    weights[len(text) % 3] += len(text)
    probabilities = {label: round(weight / sum(weights), 6) for label, weight in zip(LABELS, weights, strict=True)}
    label = LABELS[len(text) % 3]
    score = probabilities[label]
    return {"label": label, "score": score, "review": score < REVIEW_THRESHOLD, "probabilities": probabilities}


class LengthModel:
    """A model whose class is the length of the text modulo three; like a server, it takes no empty request."""

    name = "LengthModel/1"

    def __init__(self, fail_at: str = "") -> None:
        self.fail_at = fail_at
        self.requests: list[int] = []

    def predict(self, items: Sequence[NewsItem]) -> list[Prediction]:
        assert items, "no items"
        self.requests.append(len(items))
        texts = [preprocess(item) for item in items]
        if self.fail_at and self.fail_at in texts:
            raise ServingError("the server went away", "newsbert serve locally")
        return [self._predict(text) for text in texts]

    @staticmethod
    def _predict(text: str) -> Prediction:
        weights = [1.0, 1.0, 1.0]
        weights[len(text) % 3] += len(text)
        return Prediction.of(LABELS, [weight / sum(weights) for weight in weights], REVIEW_THRESHOLD)


def write_jsonl(file: Path, table: Sequence[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in table))
    return file


def classify(file: Path, output: Path, text_column: str | None = None, model: LengthModel | None = None) -> BatchResult:
    return predict_file(model or LengthModel(), file, output, text_column, lambda _done, _total: None)


def answers(output: Path, columns: Sequence[str] = ANSWER_COLUMNS) -> list[dict[str, object]]:
    """The answers in a file, read back: csv and parquet hold the probabilities as JSON, and csv all as text."""
    rows = []
    for row in readers.read(output):
        label, score, review, probabilities = (row[column] for column in columns)
        if isinstance(probabilities, str):
            probabilities = json.loads(probabilities) if probabilities else None
        rows.append(
            {
                "label": label or None,
                "score": float(score) if score not in {None, ""} else None,
                "review": {"true": True, "false": False, "": None}[review] if isinstance(review, str) else review,
                "probabilities": probabilities,
            }
        )
    return rows


NO_ANSWER: dict[str, object] = {"label": None, "score": None, "review": None, "probabilities": None}

utf8_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)

REVIEW_THRESHOLD = 0.75
"""Which texts of up to six characters are below."""
