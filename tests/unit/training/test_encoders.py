"""Encoders as the Hub has them: what newsbert computes of one is what transformers computes, or it is refused."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertTokenizerFast,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    ModernBertConfig,
    PreTrainedConfig,
    RobertaConfig,
)

from newsbert.core.settings import TrainSettings
from newsbert.errors import ModelError, UsageError
from newsbert.inference.runtimes.onnxruntime import OnnxGraph
from newsbert.training import base_model, bert_graph, fine_tuning, graphs, methods, tokenizer
from newsbert.training.export import onnx
from newsbert.training.tokenizer import prepare_tokenizer

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
    return fine_tuning.load_classifier(base, NAMES).eval()


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
        trained = graphs.make_graph(model).eval()(ids, mask)
    assert torch.allclose(trained, expected, atol=1e-4), (trained, expected)
    assert bert_graph.supports(model) == (model.config.model_type == "bert")
    if name not in EXPORTED:  # an export takes seconds
        return
    onnx.write_onnx(model, tmp_path / "model.onnx")
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
        prepare_tokenizer(base, tmp_path, places + 1)
    prepare_tokenizer(base, tmp_path, places)
    ids = torch.full((1, places), 5)
    model = fine_tuning.load_classifier(base, NAMES)
    assert model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.shape == (1, 3)


def test_what_is_not_there_as_a_whole_is_refused_by_its_name(tmp_path: Path) -> None:
    base = _with_tokenizer(CONFIGS["bert"], tmp_path / "base")
    weights, config = base.path / "model.safetensors", base.path / "config.json"
    whole, pointer = weights.read_bytes(), b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    for file, content, message in (
        (weights, pointer, "model.safetensors is a Git LFS pointer"),
        (weights, whole[:-1], "model.safetensors is not whole"),
        (weights, whole[:20], "model.safetensors is not whole"),
        (weights, b"", "model.safetensors is not whole"),
        (base.path / "tokenizer.json", pointer, "tokenizer.json is a Git LFS pointer"),
        (config, config.read_bytes()[:40], "config.json cannot be read"),
    ):
        before = file.read_bytes()
        file.write_bytes(content)
        with pytest.raises(ModelError, match=message) as caught:
            base_model.find(str(base.path))
        assert caught.value.hint
        file.write_bytes(before)
    base_model.find(str(base.path))


def _drop(directory: Path, part: str) -> None:
    """Leave out of the weights the tensors that have this in their names."""
    tensors = load_file(directory / "model.safetensors")
    save_file({name: tensor for name, tensor in tensors.items() if part not in name}, directory / "model.safetensors")


def _cut(directory: Path, part: str) -> None:
    """Halve the tensors that have this in their names."""
    tensors = load_file(directory / "model.safetensors")
    cut = {name: tensor[:, :16].contiguous() if part in name else tensor for name, tensor in tensors.items()}
    save_file(cut, directory / "model.safetensors")


def _divide(directory: Path, _: str) -> None:
    """Have an index that names two files of weights, of which one is there."""
    weights = directory / "model.safetensors"
    files = {name: f"model-{place % 2 + 1}.safetensors" for place, name in enumerate(load_file(weights))}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    weights.rename(directory / "model-1.safetensors")


def _adapt(directory: Path, _: str) -> None:
    (directory / "model.safetensors").rename(directory / "adapter_model.safetensors")
    (directory / "adapter_config.json").write_text('{"peft_type": "LORA"}')


def _without(directory: Path, pattern: str) -> None:
    for file in directory.glob(pattern):
        file.unlink()


def _configure(directory: Path, change: str) -> None:
    config = directory / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | json.loads(change)))


def _no_pad(directory: Path, _: str) -> None:
    config = directory / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"pad_token": None}))


# The architecture, the change to its files, its argument, and the error's message
BROKEN: dict[str, tuple[PreTrainedConfig, Callable[[Path, str], None], str, str]] = {
    "a layer is missing": (CONFIGS["bert"], _drop, "layer.1.", "layer.1.attention.output.LayerNorm.bias is missing"),
    "another shape": (CONFIGS["bert"], _cut, "query.weight", "self.query.weight has another shape than config.json"),
    "a file of weights is missing": (CONFIGS["bert"], _divide, "", "is not whole: model-2.safetensors is missing"),
    "an adapter": (CONFIGS["bert"], _adapt, "", r"is an adapter \(adapter_config.json\)"),
    "no tokenizer": (CONFIGS["bert"], _without, "[tv]o[kc]*", "has no tokenizer: none of tokenizer.json, vocab.txt"),
    "no weights": (CONFIGS["bert"], _without, "*.safetensors", "has no weights in safetensors"),
    "no configuration": (CONFIGS["bert"], _without, "config.json", "has no config.json"),
    "more tokens than the encoder": (
        BertConfig(**SMALL | {"vocab_size": 39}), _configure, "{}", "has 40 tokens, and its encoder 39",
    ),
    "no pad token": (CONFIGS["bert"], _no_pad, "", "has no pad token"),
    "a decoder": (
        GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=2), _configure, '{"pad_token_id": null}',
        r"\(gpt2\) does not classify texts: Cannot handle batch sizes > 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_tuned_is_refused_before_anything_slow(name: str, tmp_path: Path) -> None:
    config, spoil, part, message = BROKEN[name]
    _with_tokenizer(config, tmp_path / "base")
    spoil(tmp_path / "base", part)
    with pytest.raises(ModelError, match=message) as caught:
        methods.check(base_model.find(str(tmp_path / "base")), TrainSettings(max_length=16))
    assert caught.value.hint


def test_a_vocabulary_alone_is_a_tokenizer(tmp_path: Path) -> None:
    _with_tokenizer(CONFIGS["bert"], tmp_path / "base")
    _without(tmp_path / "base", "tokenizer*")
    base = base_model.find(str(tmp_path / "base"))
    methods.check(base, TrainSettings(max_length=16))
    assert prepare_tokenizer(base, tmp_path, 16).encode(["w3 w4"]) == [[2, 8, 9, 3]]


def test_pickled_weights_are_refused_with_the_command_that_writes_them_anew(tmp_path: Path) -> None:
    _with_tokenizer(CONFIGS["bert"], tmp_path / "my base")
    weights = tmp_path / "my base" / "model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    tensor = load_file(weights)["bert.embeddings.word_embeddings.weight"]
    weights.unlink()
    with pytest.raises(ModelError, match=r"has its weights in pytorch_model\.bin, which is a pickle") as caught:
        base_model.find(str(tmp_path / "my base"))
    target, _, command = str(caught.value.hint).removeprefix("write them anew, and give --base-model ").partition(": ")
    subprocess.run(["bash", "-ec", command.replace("python", shlex.quote(sys.executable), 1)], cwd=tmp_path, check=True)
    base = base_model.find(shlex.split(target)[0])
    methods.check(base, TrainSettings(max_length=16))
    assert torch.equal(load_file(base.path / "model.safetensors")["embeddings.word_embeddings.weight"], tensor)


def test_a_sentencepiece_model_alone_is_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "corpus.txt").write_text("\n".join(f"goal team cup stocks market profit {n}" for n in range(90)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "corpus.txt"), model_prefix=str(tmp_path / "spm"), vocab_size=35, minloglevel=2
    )
    config = DebertaV2Config(**SMALL | {"vocab_size": 60}, type_vocab_size=0)
    _classifier(config, tmp_path / "base")
    (tmp_path / "spm.model").rename(tmp_path / "base" / "spm.model")
    (tmp_path / "base" / "tokenizer_config.json").write_text('{"do_lower_case": false, "vocab_type": "spm"}')
    base = base_model.find(str(tmp_path / "base"))
    methods.check(base, TrainSettings(max_length=16))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(base.path / "spm.model"))
    tokens = AutoTokenizer.from_pretrained(base.path).tokenize("team stocks")
    assert tokens == processor.encode("team stocks", out_type=str)
    monkeypatch.setattr(tokenizer, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"spm\.model is a SentencePiece model") as caught:
        prepare_tokenizer(base, tmp_path, 16)
    assert caught.value.hint == "pip install sentencepiece"


def test_a_tokenizer_of_a_newer_version_is_refused_by_its_name(tmp_path: Path) -> None:
    base = _with_tokenizer(CONFIGS["bert"], tmp_path / "base")
    file = base.path / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["model"]["type"] = "OfTomorrow"
    file.write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read by tokenizers"):
        prepare_tokenizer(base, tmp_path, 16)


CASES = Path(__file__).parents[4] / "shared" / "cases" / "encoders"
OF_OTHERS = ("bert", "bert_relu", "modernbert", "regression", "roberta_nomax", "same_head_multilabel")
OF_OTHERS_REFUSED = {
    "custom_code": r"needs Python of its own \(config\.json: auto_map\)",
    "lfs_pointer": r"model\.safetensors is a Git LFS pointer",
    "newer_tokenizer": r"tokenizer\.json cannot be read by tokenizers",
}


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the encoders of others")
def test_encoders_of_others_are_taken_or_refused_with_the_way_out() -> None:
    assert {directory.name for directory in CASES.iterdir()} == {*OF_OTHERS, *OF_OTHERS_REFUSED}
    for name in OF_OTHERS:
        methods.check(base_model.find(str(CASES / name)), TrainSettings())
    for name, message in OF_OTHERS_REFUSED.items():
        with pytest.raises(ModelError, match=message) as caught:
            methods.check(base_model.find(str(CASES / name)), TrainSettings())
        assert caught.value.hint
