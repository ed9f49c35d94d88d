"""A training from the tiny encoder, start to bundle."""

import json

import newsbert
from newsbert.bundle import Bundle
from tests.conftest import LABELS


def test_learns_and_writes_a_verified_bundle(trained: tuple[newsbert.TrainResult, str]) -> None:
    result, _ = trained
    bundle = Bundle.read(result.bundle)
    bundle.verify()
    assert result.metrics["accuracy"] >= 0.8
    assert tuple(bundle.contract.labels) == LABELS
    assert bundle.contract.metrics["accuracy"] == result.metrics["accuracy"]
    assert set(bundle.contract.files) >= {
        "config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "class_mapping.json",
        "model.onnx", "model.pth", "requirements.txt", "README.md",
    }  # fmt: skip
    assert json.loads((result.bundle / "class_mapping.json").read_text()) == dict(zip("012", LABELS, strict=True))
