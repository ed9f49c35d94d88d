"""Tuning adapters: what is changed, and that what ships has none."""

from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file
from transformers import AutoModel

import newsbert
from newsbert.training import base_model, fine_tuning, lora
from newsbert.training.bert import BertTraining


def test_adapters_are_merged_into_what_computes_the_same(tiny_encoder: Path) -> None:
    model = fine_tuning.load_classifier(base_model.find(str(tiny_encoder)), ("a", "b", "c")).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adapted = lora.adapt(model, 4)
    torch.manual_seed(1)
    tuned = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    for parameter in tuned:
        parameter.data += 0.1 * torch.randn_like(parameter)
    ids = torch.tensor([[2, 60, 61, 62, 3], [2, 63, 3, 0, 0]])
    mask = (ids != 0).long()
    with torch.inference_mode():
        expected = adapted(input_ids=ids, attention_mask=mask).logits
        fast = BertTraining(lora.without_wrapper(adapted)).eval()(ids, mask)
        merged = lora.merge(adapted)
        merged_logits = merged(input_ids=ids, attention_mask=mask).logits
    assert torch.allclose(fast, expected, atol=1e-5)
    assert torch.allclose(merged_logits, expected, atol=1e-5)
    assert set(merged.state_dict()) == set(before)
    changed = {name for name, tensor in merged.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.rpartition(".")[2] for name in changed} == {"weight", "bias"}
    assert not any("embeddings" in name or "LayerNorm" in name for name in changed)
    assert sum("encoder" in name for name in changed) == 12  # six matrices in either of two layers


def test_trains_and_ships_plain_weights(tiny_encoder: Path, labelled_file: Path, database: str) -> None:
    result = newsbert.train(
        tune="lora", lora_rank=8, precision="bf16", learning_rate=1e-2, epochs=10, batch_size=8, max_length=48,
        data=str(labelled_file), base_model=str(tiny_encoder),
    )  # fmt: skip
    assert result.metrics["accuracy"] > 0.7
    run = MlflowClient(database).get_run(result.run_id)
    assert run.data.params["precision"] == run.data.tags["newsbert.precision"] == "bf16"
    weights, encoder = load_file(result.bundle / "model.safetensors"), AutoModel.from_pretrained(tiny_encoder)
    assert {f"bert.{name}" for name in encoder.state_dict()} < set(weights)
    assert not any("lora" in name for name in weights)


@pytest.mark.parametrize("bf16", [False, True])
def test_the_fast_form_computes_what_transformers_does(tiny_encoder: Path, bf16: bool) -> None:
    model = fine_tuning.load_classifier(base_model.find(str(tiny_encoder)), ("a", "b", "c"))
    model = model.to(torch.bfloat16) if bf16 else model
    ids = torch.tensor([[2, 60, 61, 62, 3], [2, 63, 3, 0, 0]])
    mask = (ids != 0).long()
    expected = model.eval()(input_ids=ids, attention_mask=mask).logits.float()
    expected.square().sum().backward()
    gradients = {
        name: parameter.grad.float() for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    model.zero_grad()
    fast = BertTraining(model).eval()
    logits = fast(ids, mask).float()
    logits.square().sum().backward()
    assert torch.allclose(logits, expected, atol=0.05 if bf16 else 1e-5)
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (name not in gradients)
        if parameter.grad is not None:
            difference = float((parameter.grad.float() - gradients[name]).abs().max())
            assert difference < (0.03 if bf16 else 1e-5) * largest, name


def test_dropout_is_drawn_from_its_seed(tiny_encoder: Path) -> None:
    model = fine_tuning.load_classifier(base_model.find(str(tiny_encoder)), ("a", "b", "c"))
    graph = BertTraining(model).train()
    ids = torch.tensor([[2, 60, 61, 62, 3]])

    def logits(*seed: int) -> list[float]:
        graph.begin(*seed)
        with torch.inference_mode():
            values: list[float] = graph(ids, torch.ones_like(ids))[0].tolist()
        return values

    assert logits(1, 2) == logits(1, 2)
    assert logits(1, 2) != logits(1, 3)
    assert logits(1, 2) != logits(2, 2)


def test_dropout_zeroes_its_rate_and_preserves_the_mean() -> None:
    from newsbert.training.bert import Dropout

    dropout = Dropout(0.1)
    dropout.begin(1)
    dropped_out = dropout(torch.ones(1000, 1001))
    rate = float((dropped_out == 0).float().mean())
    assert abs(rate - 26 / 256) < 0.001
    assert abs(float(dropped_out.mean()) - 1) < 0.002
    rows, columns = (dropped_out == 0).float().mean(1), (dropped_out == 0).float().mean(0)
    assert float(rows.std()) < 0.012
    assert float(columns.std()) < 0.012
    dropout.on = False
    assert torch.equal(dropout(torch.ones(3)), torch.ones(3))
    assert torch.equal(Dropout(0.0)(torch.ones(3)), torch.ones(3))


def test_dropout_does_not_depend_on_what_was_dropped_before() -> None:
    from newsbert.training.bert import Dropout

    def drop(dropout: Dropout) -> torch.Tensor:
        dropout.begin(1, 2)
        return dropout(torch.ones(64, 64))

    fresh, used = Dropout(0.1), Dropout(0.1)
    used(torch.ones(3000, 1000))  # larger than the table
    assert torch.equal(drop(fresh), drop(used))
    assert not torch.equal(fresh(torch.ones(64, 64)), drop(fresh))
