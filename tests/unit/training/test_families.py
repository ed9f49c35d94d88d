"""Encoders of every family are trained, and answer in every runtime as transformers does."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import newsbert
from newsbert.bundle.bundle import Bundle
from tests.support import encoders
from tests.support.tiny_model import LABELS

TEXTS = ["goal team cup", "stocks market profit of the bank", "minister border, treaty & vote " * 30]


@pytest.fixture
def texts(labelled_file: Path) -> list[str]:
    with labelled_file.open(encoding="utf-8") as stream:
        return [row["text"] for row in csv.DictReader(stream)]


@pytest.mark.parametrize("family", encoders.FAMILIES)
def test_a_family_is_trained_and_answers_as_transformers_does(
    family: str, texts: list[str], labelled_file: Path, database: str, tmp_path: Path
) -> None:
    base = encoders.make(family, tmp_path / "base", texts)
    result = newsbert.train(
        data=str(labelled_file), base_model=str(base), max_length=48, max_steps=4, batch_size=8, precision="fp32",
        companion="none", output_dir=tmp_path / "out",
    )  # fmt: skip
    expected = _transformers_answers(result.bundle)
    for runtime in ("torch", "onnxruntime", "openvino"):
        answers = newsbert.load(result.bundle, runtime=runtime).predict(TEXTS)
        probabilities = np.array([[answer.probabilities[name] for name in LABELS] for answer in answers])
        assert np.allclose(probabilities, expected, atol=2e-3), runtime


def _transformers_answers(bundle: Path) -> Any:
    """Return the probabilities that transformers alone gives."""
    model = AutoModelForSequenceClassification.from_pretrained(bundle).eval()
    tokenizer = AutoTokenizer.from_pretrained(bundle)
    order = [model.config.label2id[name] for name in LABELS]
    temperature = Bundle.read(bundle).contract.temperature
    rows = []
    for text in TEXTS:
        inputs = tokenizer(text.strip(), truncation=True, max_length=48, return_tensors="pt")
        with torch.inference_mode():
            logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        rows.append((logits / temperature).softmax(-1)[0, order].numpy())
    return np.array(rows)
