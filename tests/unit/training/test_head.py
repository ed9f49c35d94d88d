"""Tuning the head alone: what it changes, and what it computes again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

import newsbert
from newsbert.core import environment, temporary
from newsbert.core.events import Evaluation, Event, Progress, Step
from newsbert.data import dataset as data
from newsbert.data.ragged_array import RaggedArray, RaggedWriter
from newsbert.data.text import CLEANING_RULES, preprocess
from newsbert.errors import NewsbertError, UsageError
from newsbert.training import base_model, embedding_cache, fine_tuning, token_cache
from newsbert.training.bert import BertTraining
from newsbert.training.fine_tuning import TrainedModel
from newsbert.training.tokenizer import prepare_tokenizer
from tests.support import tuning

Tune = Callable[..., TrainedModel]


@pytest.fixture
def arguments(tiny_encoder: Path, labelled_file: Path) -> dict[str, Any]:
    return {
        "data": str(labelled_file), "base_model": str(tiny_encoder), "tune": "head", "max_length": 48, "epochs": 10,
        "batch_size": 16,
    }  # fmt: skip


@pytest.fixture
def tune(arguments: dict[str, Any]) -> Tune:
    return lambda **changes: tuning.tune(**{**arguments, **changes})


def _cached() -> list[Path]:
    return sorted((environment.cache_dir() / "features").glob("*/*"))


def test_only_the_head_is_changed_and_its_learning_rate_logged(
    arguments: dict[str, Any], tiny_encoder: Path, database: str
) -> None:
    import mlflow

    result = newsbert.train(**arguments)
    tuned, before = load_file(result.bundle / "model.safetensors"), AutoModel.from_pretrained(tiny_encoder).state_dict()
    for name, tensor in before.items():
        assert torch.equal(tuned[f"bert.{name}"], tensor) != name.startswith("pooler"), name
    assert len(newsbert.load(result.bundle).predict(["stocks fall"])) == 1
    params = mlflow.MlflowClient(database).get_run(result.run_id).data.params
    assert (params["tune"], params["learning_rate"]) == ("head", "0.003")


def test_the_head_of_a_real_encoder_learns(tune: Tune) -> None:
    trained = tune(data="sample", base_model="minilm", max_train_samples=200)
    assert max(evaluation.accuracy for evaluation in trained.history.evaluations) > 0.75  # of four classes


def test_vectors_are_computed_once(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tune()
    cached = _cached()
    assert len(cached) == 2  # of training and validation rows

    def encode(*_: object) -> None:
        raise AssertionError("the encoder was run again")

    monkeypatch.setattr(embedding_cache, "write_vectors", encode)
    again = tune(learning_rate=3e-3)
    assert _cached() == cached
    assert tuning.losses(again) == tuning.losses(first)  # the same seed, the same order, the same result
    with pytest.raises(AssertionError, match="run again"):
        tune(max_length=8)


def test_only_texts_that_are_new_are_read(
    tune: Tune, labelled_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_cache, "REPORT_ROWS", 1)
    read: list[int] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Progress):
            read.append(event.done)

    def rows_read(data: Path) -> int:
        read.clear()
        tune(data=str(data), on_event=on_event)
        return sum(1 for done in read if done) and sum(
            done for done, following in zip(read, [*read[1:], 0], strict=True) if following <= done
        )

    assert rows_read(labelled_file) == 81  # of 90, but for the test rows
    lines = labelled_file.read_text(encoding="utf-8").splitlines()
    mended = tmp_path / "mended.csv"
    mended.write_text("\n".join([*lines[:-1], lines[-1].replace("World", "Économie")]) + "\n", encoding="utf-8")
    assert rows_read(mended) <= 9  # another draw: what were test rows
    longer = tmp_path / "longer.csv"
    longer.write_text("\n".join([*lines, "goal team tonight,World", "a vote tonight,World"]), encoding="utf-8")
    assert rows_read(longer) <= 11


def test_other_weights_make_other_vectors(tune: Tune, tiny_encoder: Path, tmp_path: Path) -> None:
    tune()
    old = _cached()
    other = tmp_path / "other"
    shutil.copytree(tiny_encoder, other)
    weights = load_file(other / "model.safetensors")
    weights["encoder.layer.0.attention.self.query.weight"] *= -2
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    tune(base_model=str(other))
    new = [directory for directory in _cached() if directory not in old]
    assert len(new) == 2
    assert {directory.name for directory in new} == {directory.name for directory in old}  # the same texts
    for directory in new:
        (before,) = (one for one in old if one.name == directory.name)
        assert not np.allclose(np.load(directory / "vectors.npy"), np.load(before / "vectors.npy"), atol=1e-3)


def test_a_broken_cache_is_made_anew(tune: Tune, labelled_file: Path, tmp_path: Path) -> None:
    first = tune()
    for directory in _cached():
        vectors = directory / "vectors.npy"
        vectors.write_bytes(vectors.read_bytes()[:200])
    longer = tmp_path / "longer.csv"  # what would be copied from what is broken
    longer.write_text(labelled_file.read_text(encoding="utf-8") + "goal team tonight,World\n", encoding="utf-8")
    tune(data=str(longer))
    assert tuning.losses(tune()) == tuning.losses(first)


def test_what_killed_processes_left_in_the_cache_is_removed(tune: Tune) -> None:
    tokens = environment.cache_dir() / "tokens"
    left = tokens / ".newsbert-tmp-abcdefgh"
    left.mkdir(parents=True)
    (left / "lock").touch()
    with temporary.directory(tokens) as living:
        tune()
        assert list(tokens.glob(".newsbert-tmp-*")) == [living.parent]


def test_a_cache_that_cannot_be_written_is_an_error(
    tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NEWSBERT_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(NewsbertError, match="cannot be used") as caught:
        tune()
    assert "NEWSBERT_CACHE_DIR" in str(caught.value.hint)


def test_encoding_reports_progress_and_can_be_stopped(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_cache, "REPORT_ROWS", 1)
    events: list[Event] = []

    def stop() -> bool:
        return any(isinstance(event, Step) for event in events)

    result = tune(on_event=events.append, stop=stop)
    encoded = [event for event in events if isinstance(event, Progress)]
    assert encoded
    assert {event.name for event in encoded} == {"encoding"}
    assert all(0 < event.done <= event.total for event in encoded)
    assert result.stopped_early
    assert sum(isinstance(event, Evaluation) for event in events) == 1


def test_a_stop_before_anything_is_learned_leaves_no_model(
    arguments: dict[str, Any], database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_cache, "REPORT_ROWS", 1)
    with pytest.raises(KeyboardInterrupt):
        newsbert.train(**arguments, stop=lambda: True, output_dir=tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    assert not _cached()


def test_vectors_are_the_encoders_own(tiny_encoder: Path, tmp_path: Path) -> None:
    base = base_model.find(str(tiny_encoder))
    tokenizer = prepare_tokenizer(base, tmp_path, 48)
    rows = tokenizer.encode(["stocks fall as bank profit rises", "goal", "treaty vote border " * 9])
    with RaggedWriter(tmp_path / "rows", np.int32) as writer:
        writer.extend(rows)
    encoder = BertTraining(fine_tuning.load_classifier(base, ("a", "b"))).eval()
    stored: token_cache.TokenRows = RaggedArray(tmp_path / "rows", np.int32)
    vectors = embedding_cache.of(encoder, base.sha256, stored, "key", tokenizer.pad_id)
    model = AutoModel.from_pretrained(tiny_encoder).eval()
    for row, vector in zip(rows, vectors, strict=True):
        with torch.inference_mode():
            expected = model(input_ids=torch.tensor([row])).last_hidden_state[0, 0].numpy()
        assert np.abs(vector - expected).max() < 1e-4
    assert isinstance(vectors, np.memmap)


def test_copied_vectors_are_what_they_would_be_if_they_were_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_cache, "COPY_ROWS", 7)
    monkeypatch.setattr(embedding_cache, "REPORT_ROWS", 1)
    base = base_model.find("minilm")
    tokenizer = prepare_tokenizer(base, tmp_path, 128)
    items = data.read_items(None, CLEANING_RULES)[:120]
    ids = tokenizer.encode([preprocess(item) for item in items])
    encoder = BertTraining(fine_tuning.load_classifier(base, ("a", "b")).to(torch.bfloat16)).eval()
    computed: list[int] = []

    def vectors(name: str, chosen: list[int], weights: str) -> Any:
        with RaggedWriter(tmp_path / f"{name} {weights}", np.int32) as writer:
            writer.extend([ids[row] for row in chosen])
        computed.clear()
        rows: token_cache.TokenRows = RaggedArray(tmp_path / f"{name} {weights}", np.int32)
        return embedding_cache.of(encoder, weights, rows, name, tokenizer.pad_id, lambda _, of: computed.append(of))

    vectors("some", list(range(0, 90)), "weights")
    assert computed[-1] == 90
    others = [111, 7, 60, 8, 95, 7, *range(20, 50)]
    copied = vectors("others", others, "weights")
    assert computed[-1] == 3  # 111, 95, and 7 once more
    assert np.array_equal(copied, vectors("others", others, "the same, by another name"))
    assert computed[-1] == len(others)


def test_an_encoder_of_another_architecture_is_refused(tune: Tune, tmp_path: Path, tiny_encoder: Path) -> None:
    from transformers import AutoTokenizer, DistilBertConfig, DistilBertModel

    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    size = json.loads((tiny_encoder / "config.json").read_text())["vocab_size"]
    other = tmp_path / "distil"
    DistilBertModel(DistilBertConfig(vocab_size=size, dim=32, n_layers=1, n_heads=2, hidden_dim=32)).save_pretrained(
        other
    )
    tokenizer.save_pretrained(other)
    with pytest.raises(UsageError, match="distilbert"):
        tune(base_model=str(other))
