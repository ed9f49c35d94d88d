"""Rows that are hard to train on: many classes, hardly any of one, a text of ten megabytes, a batch of all."""

import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import newsbert
from newsbert.bundle import Bundle
from newsbert.events import Event, Step

Train = Callable[..., newsbert.TrainResult]


@pytest.fixture
def train(tiny_encoder: Path, tmp_path: Path) -> Train:
    """Train on rows of text and label, and see that the bundle is whole."""

    def train(rows: Iterable[tuple[str, str]], **settings: Any) -> newsbert.TrainResult:
        with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
        given: dict[str, Any] = {"max_length": 32, "max_steps": 6, **settings}
        result = newsbert.train(
            data="rows.csv", base_model=str(tiny_encoder), tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}", **given
        )
        Bundle.read(result.bundle).verify()
        return result

    return train


def test_two_hundred_classes(train: Train) -> None:
    result = train((f"goal team {number} {row}", f"class {number}") for number in range(200) for row in range(10))
    assert result.scores.confusion.shape == (200, 200)
    assert len(newsbert.load(result.bundle).predict(["goal team 7"])[0].probabilities) == 200


def test_hardly_any_row_of_one_class(train: Train) -> None:
    rows = [(f"goal team {row}", "common") for row in range(2_997)]
    result = train([*rows, *((f"minister treaty {row}", "rare") for row in range(3))])
    assert result.scores.per_class["rare"].support == 1


@pytest.mark.parametrize("tune", ["full", "head"])
def test_a_text_of_ten_megabytes(train: Train, tune: str) -> None:
    huge = "goal team cup " * 750_000
    rows = [(f"goal team {row}", "sport") for row in range(40)] + [(f"minister {row}", "world") for row in range(40)]
    result = train([*rows, (huge, "sport")], tune=tune)
    model = newsbert.load(result.bundle)
    beginning = huge[:1_000]
    found = model.predict([huge, beginning])  # both longer than it reads
    assert found[0].probabilities == pytest.approx(found[1].probabilities, abs=1e-6)


def test_a_batch_of_all_rows(train: Train) -> None:
    rows = [(f"goal team {row}", "sport") for row in range(400)] + [(f"minister {row}", "world") for row in range(400)]
    steps: list[int] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Step):
            steps.append(event.step)

    settings = {"batch_size": 100_000, "epochs": 30, "max_steps": None, "learning_rate": 3e-3}
    result = train(rows, **settings, on_event=on_event)
    assert steps == list(range(1, 31))  # one an epoch
    assert result.metrics["accuracy"] > 0.9
