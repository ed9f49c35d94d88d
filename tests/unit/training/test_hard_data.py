"""Rows that are hard to train on: many classes, hardly any of one, a text of ten megabytes, a batch of all."""

import csv
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import mlflow
import pytest

import newsbert
from newsbert.bundle.bundle import Bundle
from newsbert.core.events import Event, Note, Phase, Step
from newsbert.errors import NewsbertError
from newsbert.training.fine_tuning import ClassificationTask
from tests.support import tuning

Rows = Iterable[tuple[str, str]]
Train = Callable[..., newsbert.TrainResult]


def _write(rows: Rows) -> None:
    with Path("rows.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])


@pytest.fixture
def arguments(tiny_encoder: Path) -> dict[str, Any]:
    return {"data": "rows.csv", "base_model": str(tiny_encoder), "max_length": 32, "max_steps": 6}


@pytest.fixture
def train(arguments: dict[str, Any], database: str) -> Train:
    """Train on rows of text and label, and see that the bundle is whole."""

    def train(rows: Rows, **settings: Any) -> newsbert.TrainResult:
        _write(rows)
        result = newsbert.train(**{**arguments, **settings})
        Bundle.read(result.bundle).verify()
        return result

    return train


def test_two_hundred_classes(train: Train) -> None:
    result = train((f"goal team {number} {row}", f"class {number}") for number in range(200) for row in range(10))
    assert result.scores.confusion.shape == (200, 200)
    assert len(newsbert.load(result.bundle).predict(["goal team 7"])[0].probabilities) == 200


def test_hardly_any_row_of_one_class(train: Train) -> None:
    rows = [(f"goal team {row}", "common") for row in range(597)]
    result = train([*rows, *((f"minister treaty {row}", "rare") for row in range(3))])
    assert result.scores.per_class["rare"].support == 1


def test_a_text_of_ten_megabytes(train: Train, arguments: dict[str, Any]) -> None:
    huge = "goal team cup " * 750_000
    rows = [(f"goal team {row}", "sport") for row in range(40)] + [(f"minister {row}", "world") for row in range(40)]
    result = train([*rows, (huge, "sport")])
    model = newsbert.load(result.bundle)
    beginning = huge[:1_000]
    predictions = model.predict([huge, beginning])  # both longer than it reads
    assert predictions[0].probabilities == pytest.approx(predictions[1].probabilities, abs=1e-6)
    tuning.tune(**arguments, tune="head")


def test_a_batch_of_all_rows(arguments: dict[str, Any]) -> None:
    _write([(f"goal team {row}", "sport") for row in range(100)] + [(f"minister {row}", "world") for row in range(100)])
    steps: list[int] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Step):
            steps.append(event.step)

    settings = {"batch_size": 100_000, "epochs": 30, "max_steps": None, "learning_rate": 3e-3}
    trained = tuning.tune(**{**arguments, **settings}, on_event=on_event)
    assert steps == list(range(1, 31))  # one an epoch
    assert trained.history.evaluations[-1].accuracy > 0.9


def test_a_learning_rate_that_is_far_too_high_gets_a_note(train: Train) -> None:
    rows = [(f"goal team {row}", "sport") for row in range(60)] + [(f"minister {row}", "world") for row in range(60)]
    notes: list[str] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.message)
        if isinstance(event, Phase) and event.name == "exporting":
            raise KeyboardInterrupt  # by now the note was sent

    with pytest.raises(KeyboardInterrupt):
        train(rows, learning_rate=1.0, max_steps=40, on_event=on_event)
    assert any(note.startswith("the model is not better than chance") and "than 1," in note for note in notes), notes
    notes.clear()
    with pytest.raises(KeyboardInterrupt):
        train(rows, learning_rate=3e-3, epochs=20, max_steps=None, on_event=on_event)
    assert not any("better than chance" in note for note in notes), notes


def test_something_else_that_has_come_where_the_bundle_belongs_is_let_alone(train: Train, tmp_path: Path) -> None:
    rows = [(f"goal team {row}", "sport") for row in range(60)] + [(f"minister {row}", "world") for row in range(60)]

    def on_event(event: Event) -> None:
        if isinstance(event, Phase) and event.name == "logging":
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "mine").touch()

    with pytest.raises(NewsbertError, match="there is something else in out by now"):
        train(rows, output_dir="out", on_event=on_event)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_after_a_loss_that_is_no_number_the_model_is_the_last_good_one_with_a_note(
    arguments: dict[str, Any], labelled_file: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.message)

    def train(last: int) -> newsbert.TrainResult:
        def diverge(task: ClassificationTask, rows: Sequence[int], step: int) -> float:
            return backward(task, rows, step) if step != last else float("nan")

        with monkeypatch.context() as patch:
            patch.setattr(ClassificationTask, "backward", diverge)
            settings = {"data": str(labelled_file), "epochs": 8, "max_steps": None}
            return newsbert.train(**{**arguments, **settings}, on_event=on_event)

    backward = ClassificationTask.backward
    result = train(50)
    assert result.diverged_at == 50
    message = "the loss is not finite (NaN or infinite) at step 50: the model is that of step "
    assert any(note.startswith(message) for note in notes), notes
    run = mlflow.MlflowClient(database).get_run(result.run_id)
    assert run.data.tags["newsbert.diverged_at"] == "50"
    assert run.data.metrics["best_step"] < 50
    Bundle.read(result.bundle).verify()
    with pytest.raises(NewsbertError, match=r"the loss is not finite \(NaN or infinite\) at step 2 "):
        train(2)
    assert [path.name for path in Path("bundles").iterdir()] == [result.run_id]


MEMORY = """
import resource, sys
import newsbert
from newsbert.errors import NewsbertError

def stop():
    # From the second step on no more memory is to be had than there is.
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now, resource.RLIM_INFINITY))
    return False

try:
    newsbert.train(data="rows.csv", base_model=sys.argv[1], max_length=48, batch_size=512, epochs=9, stop=stop)
except NewsbertError as error:
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(error.message, error.hint, sep=chr(10))
"""


def test_memory_that_does_not_hold_a_step(tiny_encoder: Path, tmp_path: Path) -> None:
    words = {"sport": "goal team cup coach ", "world": "minister border treaty vote "}
    with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(("text", "label"))
        csv.writer(file).writerows((f"{row} {words[label] * 20}", label) for label in words for row in range(600))
    ran = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tiny_encoder)],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    message, hint = ran.stdout.splitlines()
    assert message.startswith("the memory does not hold a step of texts of up to 48 tokens: ")
    assert "--max-length 24" in hint
