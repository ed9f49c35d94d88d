"""Encoders as the Hub has them: what newsbert computes of one is what transformers computes, or it is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    BertTokenizerFast,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    PreTrainedConfig,
    RobertaConfig,
)

from newsbert import base_model, bert_graph, export, training
from newsbert.errors import ModelError, UsageError
from newsbert.runtimes.onnx import OnnxGraph

SMALL = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
NAMES = ("a", "b", "c")
CONFIGS: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(**SMALL),
    "relu": BertConfig(**SMALL, hidden_act="relu"),
    "gelu_new": BertConfig(**SMALL, hidden_act="gelu_new"),
    "silu": BertConfig(**SMALL, hidden_act="silu"),
    "eps": BertConfig(**SMALL, layer_norm_eps=0.1),
    "positions": BertConfig(**SMALL, max_position_embeddings=20),
    "no_dropout": BertConfig(
        **SMALL, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, classifier_dropout=0.0
    ),
    "one_layer": BertConfig(**SMALL | {"num_hidden_layers": 1}),
    "pad_id": BertConfig(**SMALL, pad_token_id=7),
    "one_type": BertConfig(**SMALL, type_vocab_size=1),
    "regression": BertConfig(**SMALL, problem_type="regression"),
    "albert": AlbertConfig(**SMALL, embedding_size=16),
    "distilbert": DistilBertConfig(vocab_size=40, dim=32, n_layers=2, n_heads=2, hidden_dim=48),
    "electra": ElectraConfig(**SMALL, embedding_size=16),
    "modernbert": ModernBertConfig(**SMALL, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1),
    "roberta": RobertaConfig(**SMALL, max_position_embeddings=22),
}

EXPORTED = ("relu", "modernbert", "roberta")


def _classifier(config: PreTrainedConfig, directory: Path) -> Any:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():  # what is zero or one at first would hide what is left out
            parameter.normal_(0.0 if parameter.dim() > 1 else 0.5, 0.2)
    model.save_pretrained(directory)
    base = base_model.BaseModel("made", directory, "")
    return training.classifier(base, NAMES).eval()


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_trained_and_what_is_served_is_what_transformers_computes(name: str, tmp_path: Path) -> None:
    model = _classifier(CONFIGS[name], tmp_path)
    assert model.config.problem_type == "single_label_classification"
    ids = torch.arange(3, 39).reshape(2, 18)
    mask = torch.ones_like(ids)
    mask[1, 11:] = 0
    ids[1, 11:] = model.config.pad_token_id or 0
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask).logits
        trained = training._graph(model).eval()(ids, mask)
    assert torch.allclose(trained, expected, atol=1e-4), (trained, expected)
    assert bert_graph.fits(model) == (model.config.model_type == "bert")
    if name not in EXPORTED:  # an export takes seconds
        return
    export.write_onnx(model, tmp_path / "model.onnx")
    served = torch.from_numpy(OnnxGraph(tmp_path / "model.onnx").logits(ids.numpy(), mask.numpy()))
    assert torch.allclose(served, expected, atol=1e-4), (served, expected)


def _with_tokenizer(config: PreTrainedConfig, directory: Path) -> base_model.BaseModel:
    _classifier(config, directory)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(35))]
    (directory / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(str(directory / "vocab.txt")).save_pretrained(directory)
    return base_model.find(str(directory))


@pytest.mark.parametrize(("name", "places"), [("positions", 20), ("roberta", 20)])
def test_no_more_tokens_are_read_than_an_encoder_has_places_for(name: str, places: int, tmp_path: Path) -> None:
    base = _with_tokenizer(CONFIGS[name], tmp_path / "base")
    with pytest.raises(UsageError, match=f"more than the {places} tokens"):
        training.prepare_tokenizer(base, tmp_path, places + 1)
    training.prepare_tokenizer(base, tmp_path, places)
    ids = torch.full((1, places), 5)
    model = training.classifier(base, NAMES)
    assert model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.shape == (1, 3)


def test_what_is_not_there_as_a_whole_is_refused_by_its_name(tmp_path: Path) -> None:
    base = _with_tokenizer(CONFIGS["bert"], tmp_path / "base")
    weights, config = base.path / "model.safetensors", base.path / "config.json"
    whole, pointer = weights.read_bytes(), b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    for file, content, said in (
        (weights, pointer, "model.safetensors is a Git LFS pointer"),
        (weights, whole[:-1], "model.safetensors is not whole"),
        (weights, whole[:20], "model.safetensors is not whole"),
        (weights, b"", "model.safetensors is not whole"),
        (base.path / "tokenizer.json", pointer, "tokenizer.json is a Git LFS pointer"),
        (config, config.read_bytes()[:40], "config.json cannot be read"),
    ):
        before = file.read_bytes()
        file.write_bytes(content)
        with pytest.raises(ModelError, match=said) as caught:
            base_model.find(str(base.path))
        assert caught.value.hint
        file.write_bytes(before)
    base_model.find(str(base.path))


def test_a_tokenizer_of_a_newer_version_is_refused_by_its_name(tmp_path: Path) -> None:
    base = _with_tokenizer(CONFIGS["bert"], tmp_path / "base")
    file = base.path / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["model"]["type"] = "OfTomorrow"
    file.write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read by tokenizers"):
        training.prepare_tokenizer(base, tmp_path, 16)
