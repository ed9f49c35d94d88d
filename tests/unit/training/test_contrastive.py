"""Contrastive tuning: what it learns from few rows, the head that it fits, and the layer that pools all tokens."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

import newsbert
from newsbert.core.settings import MAX_FEW_ROWS, TrainSettings
from newsbert.data.dataset import Dataset, Split
from newsbert.errors import UsageError
from newsbert.training import base_model, contrastive, fine_tuning, methods
from newsbert.training.context import TrainingContext
from newsbert.training.contrastive import ContrastiveTask
from newsbert.training.export import companion
from newsbert.training.rows import load_rows
from newsbert.training.tokenizer import prepare_tokenizer
from tests.support import encoders, tuning


@pytest.fixture
def settings(tiny_encoder: Path, labelled_file: Path) -> dict[str, Any]:
    return {
        "data": str(labelled_file), "base_model": str(tiny_encoder), "tune": "contrastive", "max_length": 48,
        "epochs": 2, "batch_size": 16,
    }  # fmt: skip


def test_a_real_encoder_learns_from_eight_rows_per_label() -> None:
    trained = tuning.tune(data="sample", base_model="minilm", tune="contrastive", max_train_samples=32, max_steps=12)
    assert max(evaluation.accuracy for evaluation in trained.history.evaluations) > 0.6  # of four classes
    assert trained.model.config.num_hidden_layers == 7  # the last one computes the mean of all tokens


def test_vectors_of_one_label_are_drawn_together(settings: dict[str, Any]) -> None:
    trained = tuning.tune(**settings | {"epochs": 20, "learning_rate": 3e-3})
    losses = [report.loss for report in trained.history.steps if report.loss is not None]
    assert losses[-1] < 0.5 * losses[0]
    assert trained.history.evaluations[-1].accuracy > 0.9


def test_the_head_is_what_was_scored(settings: dict[str, Any], tmp_path: Path) -> None:
    trained = tuning.tune(**settings | {"precision": "fp32"})
    rows = load_rows(TrainSettings(**settings))
    scores = _score(trained.model, base_model.find(settings["base_model"]), rows.scored.texts, tmp_path)
    predicted = scores.argmax(1)
    evaluation = trained.history.evaluations[-1]
    assert float((predicted == rows.scored.labels).mean()) == pytest.approx(evaluation.accuracy)
    losses = nn.functional.cross_entropy(torch.from_numpy(scores), torch.from_numpy(rows.scored.labels).long())
    assert float(losses) == pytest.approx(evaluation.loss, abs=1e-4)


def _score(model: PreTrainedModel, base: base_model.BaseModel, texts: Any, directory: Path) -> Any:
    """Return transformers' logits of prepared texts, one by one."""
    tokenizer = prepare_tokenizer(base, directory, 48)
    with torch.inference_mode():
        return np.concatenate(
            [model(input_ids=torch.tensor([ids])).logits.numpy() for ids in tokenizer.encode(list(texts))]
        )


def test_what_ships_answers_as_it_was_trained(settings: dict[str, Any], tiny_encoder: Path, database: str) -> None:
    import mlflow

    result = newsbert.train(**settings)
    tuned, before = load_file(result.bundle / "model.safetensors"), AutoModel.from_pretrained(tiny_encoder).state_dict()
    assert torch.equal(tuned["bert.pooler.dense.weight"], torch.eye(32) * tuned["bert.pooler.dense.weight"][0, 0])
    for name in ("embeddings.word_embeddings.weight", "encoder.layer.1.attention.self.query.weight"):
        assert not torch.equal(tuned[f"bert.{name}"], before[name])
    assert len(newsbert.load(result.bundle).predict(["stocks fall"])) == 1
    params = mlflow.MlflowClient(database).get_run(result.run_id).data.params
    assert (params["tune"], params["learning_rate"]) == ("contrastive", "4e-05")


def test_two_labels(settings: dict[str, Any], tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    lines = Path(settings["data"]).read_text(encoding="utf-8").splitlines()
    rows.write_text("\n".join(line for line in lines if not line.endswith("World")) + "\n", encoding="utf-8")
    trained = tuning.tune(**settings | {"data": str(rows), "epochs": 20, "learning_rate": 3e-3})
    assert trained.history.evaluations[-1].accuracy == 1.0
    assert torch.allclose(trained.model.classifier.weight[0], -trained.model.classifier.weight[1])


def test_the_added_layer_pools_all_tokens(tiny_encoder: Path) -> None:
    base = base_model.find(str(tiny_encoder))
    plain, pooled = (load(base, ("a", "b")).eval() for load in (fine_tuning.load_classifier, contrastive.load_encoder))
    ids = torch.tensor([[2, 60, 61, 62, 3], [2, 63, 3, 0, 0]])
    mask = (ids != 0).long()
    with torch.inference_mode():
        tokens = plain.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        first = pooled.bert(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
    mean = (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    expected = nn.functional.layer_norm(50 * mean + tokens[:, 0], [32])
    assert torch.allclose(first, expected, atol=1e-4)
    assert nn.functional.cosine_similarity(first, mean - mean.mean(1, keepdim=True)).min() > 0.99


def test_pairs_count_by_their_labels() -> None:
    def loss(vectors: Tensor, labels: list[int]) -> float:
        return float(ContrastiveTask.compute_loss(None, vectors, torch.tensor(labels))) / len(labels)  # type: ignore[arg-type]

    right = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    assert loss(right, [0, 0, 1]) == 0.0
    assert loss(right, [0, 1, 1]) == pytest.approx((1.0 + (1.0 + 0.0) / 2) / 2)  # one pair is the same, two are not
    assert loss(right, [0, 1, 2]) == pytest.approx(1 / 3)  # no two rows have the same label
    assert loss(right[:1], [0]) == 0.0


@pytest.mark.parametrize(
    ("rows_per_label", "workers", "method"),
    [
        (MAX_FEW_ROWS, 1, "contrastive"),
        (MAX_FEW_ROWS + 1, 1, "full"),
        (MAX_FEW_ROWS, 2, "full"),
    ],
)
def test_few_rows_are_tuned_by_pairs(
    rows_per_label: int, workers: int, method: str, tiny_encoder: Path, tmp_path: Path
) -> None:
    for name, count in {"train": rows_per_label, "validation": 2, "test": 2}.items():
        lines = [f"{name} {label} {number},{label}" for label in ("a", "b") for number in range(count)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
    settings = TrainSettings(data=str(tmp_path))
    base = base_model.find(str(tiny_encoder))
    assert methods.choose(settings, load_rows(settings), base, workers).tune == method
    explicit = TrainSettings(data=str(tmp_path), tune="lora")
    assert methods.choose(explicit, load_rows(settings), base, workers) == explicit


@pytest.mark.parametrize(("rows_per_label", "texts", "is_fitted"), [(16, 0, False), (17, 0, True), (16, 40, True)])
def test_few_rows_have_no_companion(rows_per_label: int, texts: int, is_fitted: bool) -> None:
    labels = np.arange(2 * rows_per_label, dtype=np.int32) % 2
    train = Split([f"{'goal' if label else 'vote'} {row}" for row, label in enumerate(labels)], labels, "")
    unlabelled = tuple(f"goal of {row}" for row in range(texts))
    dataset = Dataset("rows", ("a", "b"), train, train, train, "", unlabelled=unlabelled)
    context = TrainingContext(TrainSettings(), dataset, base_model.BaseModel("b", Path(), ""))
    guess = np.full((len(train), 2), 0.5, np.float32)
    fitted = companion.fit(context, guess, np.tile(np.array([0.1, 0.9], np.float32), (texts, 1)))
    assert (fitted is not None) == is_fitted


def test_another_architecture_is_tuned_by_labels(tmp_path: Path, labelled_file: Path) -> None:
    texts = Path(labelled_file).read_text(encoding="utf-8").splitlines()
    base = base_model.find(str(encoders.make("distilbert", tmp_path, texts)))
    settings = TrainSettings(data=str(labelled_file))
    assert methods.choose(settings, load_rows(settings), base).tune == "full"
    with pytest.raises(UsageError, match="--tune contrastive is for BERT's architecture"):
        tuning.tune(data=str(labelled_file), base_model=str(base.path), tune="contrastive", max_length=48)
