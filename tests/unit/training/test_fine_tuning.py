"""A training from the tiny encoder, start to bundle."""

import csv
import json
from pathlib import Path

import pytest
import torch

import newsbert
from newsbert.bundle.bundle import Bundle
from newsbert.core.events import Event, Note
from newsbert.core.settings import TrainSettings
from newsbert.data.dataset import load_dataset
from newsbert.errors import UsageError
from newsbert.evaluation.review_threshold import PRECISIONS
from newsbert.training import base_model, fine_tuning, tokenizer
from newsbert.training.precision import choose_precision, time_training_steps
from tests.support.tiny_model import LABELS, REVIEW_THRESHOLD


def test_learns_and_writes_a_verified_bundle(trained: tuple[newsbert.TrainResult, str]) -> None:
    result, _ = trained
    bundle = Bundle.read(result.bundle)
    bundle.verify()
    assert result.metrics["accuracy"] >= 0.8
    assert tuple(bundle.contract.labels) == LABELS
    assert bundle.contract.metrics["accuracy"] == result.metrics["accuracy"]
    assert set(bundle.contract.files) >= {
        "config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "class_mapping.json",
        "model.onnx", "requirements.txt", "README.md",
    }  # fmt: skip
    assert json.loads((result.bundle / "class_mapping.json").read_text()) == dict(zip("012", LABELS, strict=True))


def test_what_a_threshold_does_to_the_test_rows_is_recorded_everywhere(
    trained: tuple[newsbert.TrainResult, str], labelled_file: Path
) -> None:
    result, _ = trained
    model, rows = newsbert.load(result.bundle), load_dataset(str(labelled_file)).test
    answers = list(zip(model.predict(rows.texts), rows.labels, strict=True))
    is_correct = [answer.label == LABELS[label] for answer, label in answers if not answer.review]
    assert is_correct  # or it would not be the test that it is meant to be
    chosen, *others = result.review
    assert (chosen.precision, chosen.below) == (None, REVIEW_THRESHOLD)
    assert chosen.test.review_rate == pytest.approx(1 - len(is_correct) / len(answers))
    assert chosen.test.accuracy == pytest.approx(sum(is_correct) / len(is_correct))
    assert [point.precision for point in others] == list(PRECISIONS)
    contract = model.bundle.contract
    assert contract.review_threshold == model.review_threshold == REVIEW_THRESHOLD
    assert contract.metrics["review_rate"] == chosen.test.review_rate
    assert contract.metrics["selective_accuracy"] == chosen.test.accuracy
    with (result.bundle / "review.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["precision"], float(row["review_threshold"])) for row in table] == [
        ("" if point.precision is None else str(point.precision), point.below) for point in result.review
    ]
    assert float(table[0]["test_review_rate"]) == chosen.test.review_rate
    card = (result.bundle / "README.md").read_text(encoding="utf-8")
    assert f"a score below {REVIEW_THRESHOLD}" in card
    assert all(f"\n| {precision:.4g} | " in card for precision in PRECISIONS)


def test_where_the_precision_cannot_be_shown_a_person_sees_everything(
    tiny_encoder: Path, labelled_file: Path, database: str
) -> None:
    notes: list[Event] = []
    result = newsbert.train(
        data=str(labelled_file), base_model=str(tiny_encoder), tune="head", epochs=1, max_length=48,
        review_target_accuracy=0.99, on_event=notes.append,
    )  # fmt: skip
    assert result.review[0].below == 1
    assert (result.review[0].test.review_rate, result.review[0].test.accuracy) == (1, None)
    messages = [note.message for note in notes if isinstance(note, Note)]
    assert any(message.startswith("every answer is flagged for review") for message in messages)
    assert "selective_accuracy" not in Bundle.read(result.bundle).contract.metrics
    assert newsbert.load(result.bundle).predict(["goal"])[0].review
    assert not newsbert.load(result.bundle, review_threshold=0).predict(["goal"])[0].review


def test_more_tokens_than_the_encoder_reads_are_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    base = base_model.find(str(tiny_encoder))
    assert tokenizer.prepare_tokenizer(base, tmp_path / "most", 64).max_length == 64
    with pytest.raises(UsageError, match=r"--max-length 65 is more than the 64 tokens that .* reads") as caught:
        tokenizer.prepare_tokenizer(base, tmp_path / "more", 65)
    assert caught.value.hint == "give 64 or less"
    assert not (tmp_path / "more").exists()


@pytest.mark.parametrize(
    ("has_bf16", "seconds", "chosen"),
    [(False, {}, "fp32"), (True, {"bf16": 1.0, "fp32": 2.0}, "bf16"), (True, {"bf16": 2.0, "fp32": 2.0}, "fp32")],
)
def test_auto_is_bf16_where_the_processor_has_it_and_is_faster_with_it(
    has_bf16: bool, seconds: dict[str, float], chosen: str, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fine_tuning.load_classifier(base_model.find(str(tiny_encoder)), ("a", "b"))
    # Processors that this one is not, and times that it does not need.
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert choose_precision(model, TrainSettings(), lambda _: seconds) == chosen
    assert choose_precision(model, TrainSettings(), lambda _: {"bf16": 9.0, "fp32": 9.0}) == chosen  # it is timed once
    for precision in ("bf16", "fp32"):
        assert choose_precision(model, TrainSettings(precision=precision)) == precision


def test_both_precisions_can_be_timed(tiny_encoder: Path) -> None:
    seconds = time_training_steps(fine_tuning.load_classifier(base_model.find(str(tiny_encoder)), ("a", "b")))
    assert set(seconds) == {"bf16", "fp32"}
    assert all(0 < duration < 10 for duration in seconds.values())
