"""What MLflow's callers send: every form gives the same items, whether read into a frame first or not."""

import io
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from newsbert.errors import UsageError
from newsbert.serving.mlflow_target import payload

TEXTS = ["Stocks fall", "007"]
ITEMS = [{"title": "Stocks", "text": "fall"}, {"title": "Cup", "text": "won"}]
FORMS: list[tuple[Any, list[Any]]] = [
    ({"instances": ["Stocks fall", "Cup won"]}, ["Stocks fall", "Cup won"]),
    ({"inputs": ["Stocks fall", "Cup won"]}, ["Stocks fall", "Cup won"]),
    ({"data": ["Stocks fall", "Cup won"]}, ["Stocks fall", "Cup won"]),
    ({"instances": ITEMS}, ITEMS),
    ({"inputs": {"title": ["Stocks", "Cup"], "text": ["fall", "won"]}}, ITEMS),
    ({"dataframe_records": ITEMS}, ITEMS),
    ({"dataframe_split": {"columns": ["title", "text"], "data": [["Stocks", "fall"], ["Cup", "won"]]}}, ITEMS),
    ({"dataframe_split": {"columns": ["headline"], "data": [["Stocks fall"]]}}, ["Stocks fall"]),
    (["Stocks fall", "Cup won"], ["Stocks fall", "Cup won"]),
    (ITEMS, ITEMS),
    ([{"title": "Stocks", "text": "fall"}, {"text": "won"}], [ITEMS[0], {"text": "won"}]),
    ({"text": ["Stocks fall", "Cup won"]}, [{"text": "Stocks fall"}, {"text": "Cup won"}]),
]


@pytest.mark.parametrize(("sent", "expected"), FORMS)
def test_data_frames_of_the_mlflow_command_are_read(sent: Any, expected: list[Any]) -> None:
    frame = pd.read_json(io.StringIO(json.dumps(sent)))  # as `mlflow deployments predict` does
    assert payload.items(frame) == expected


@pytest.mark.parametrize(("sent", "expected"), FORMS)
def test_payloads_of_python_callers_are_read(sent: Any, expected: list[Any]) -> None:
    assert payload.items(sent) == expected


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("Stocks fall", ["Stocks fall"]),
        ({"text": "Stocks fall"}, [{"text": "Stocks fall"}]),
        (np.array(TEXTS), TEXTS),
        (np.array([[text] for text in TEXTS]), TEXTS),
        (pd.Series(TEXTS), TEXTS),
        (pd.DataFrame({"text": TEXTS, "label": [1, 2]}), [{"text": text} for text in TEXTS]),
    ],
)
def test_other_python_types_are_read(sent: Any, expected: list[Any]) -> None:
    assert payload.items(sent) == expected


@pytest.mark.parametrize(
    "sent", [5, None, {}, {"a": ["x"], "b": ["y"]}, pd.DataFrame({"a": ["x"], "b": ["y"]}), {"dataframe_split": [1]}]
)
def test_payloads_without_text_are_refused(sent: Any) -> None:
    with pytest.raises(UsageError) as caught:
        payload.items(sent)
    assert caught.value.hint
