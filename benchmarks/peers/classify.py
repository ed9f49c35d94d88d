"""Classifiers of the peers' apps: a bundle's weights in eager PyTorch, or one of its ONNX graphs.

They run in the peers' environment, without newsbert. Environment variables name the bundle's directory, the number of
threads, and the graph; without a graph, PyTorch runs.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

BUNDLE = Path(os.environ["NEWSBERT_BENCH_BUNDLE"])
THREADS = int(os.environ["NEWSBERT_BENCH_THREADS"])
GRAPH = os.environ.get("NEWSBERT_BENCH_GRAPH", "")
CONTRACT = json.loads((BUNDLE / "newsbert.json").read_text(encoding="utf-8"))
LABELS: list[str] = CONTRACT["labels"]
MAX_LENGTH: int = CONTRACT["max_length"]

Probabilities = dict[str, float]


class Classifier(Protocol):
    """Function that returns the probabilities by label of texts."""

    def __call__(self, texts: Sequence[str]) -> list[Probabilities]:
        """Return the probabilities of every text, computed as one batch."""
        ...


class TorchClassifier:
    """Tokenizer and model as transformers loads them, in fp32."""

    def __init__(self) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        torch.set_num_threads(THREADS)
        self._torch = torch
        self._tokenizer = AutoTokenizer.from_pretrained(str(BUNDLE), trust_remote_code=False)
        self._model = AutoModelForSequenceClassification.from_pretrained(
            str(BUNDLE), dtype=torch.float32, trust_remote_code=False
        ).eval()

    def __call__(self, texts: Sequence[str]) -> list[Probabilities]:
        """Return the probabilities of every text, computed as one batch."""
        inputs = self._tokenizer(list(texts), padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
        with self._torch.inference_mode():
            logits = self._model(**inputs).logits
        return [by_label(row) for row in (logits / CONTRACT["temperature"]).softmax(-1).tolist()]


class GraphClassifier:
    """A graph of the bundle in ONNX Runtime, behind the bundle's tokenizer."""

    def __init__(self) -> None:
        import numpy
        import onnxruntime
        from tokenizers import Tokenizer

        self._numpy = numpy
        self._tokenizer = Tokenizer.from_file(str(BUNDLE / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_LENGTH)
        self._tokenizer.enable_padding(pad_id=CONTRACT["pad_id"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(BUNDLE / GRAPH), options, providers=["CPUExecutionProvider"])

    def __call__(self, texts: Sequence[str]) -> list[Probabilities]:
        """Return the probabilities of every text, computed as one batch."""
        encodings = self._tokenizer.encode_batch(list(texts))
        ids = self._numpy.array([encoding.ids for encoding in encodings], dtype=self._numpy.int64)
        mask = self._numpy.array([encoding.attention_mask for encoding in encodings], dtype=self._numpy.int64)
        (logits,) = self._session.run(["logits"], {"input_ids": ids, "attention_mask": mask})
        powers = self._numpy.exp((logits - logits.max(-1, keepdims=True)) / CONTRACT["temperature"])
        return [by_label(row) for row in (powers / powers.sum(-1, keepdims=True)).tolist()]


def load() -> Classifier:
    """Load the classifier that the environment variables select."""
    return GraphClassifier() if GRAPH else TorchClassifier()


def pipeline() -> Classifier:
    """Load the transformers pipeline of the bundle; its logits are divided by the bundle's temperature."""
    import torch
    import transformers

    torch.set_num_threads(THREADS)
    pipe: Any = transformers.pipeline(
        "text-classification", model=str(BUNDLE), top_k=None, truncation=True, max_length=MAX_LENGTH,
        function_to_apply="none",
    )  # fmt: skip

    def classify(texts: Sequence[str]) -> list[Probabilities]:
        scores = [{item["label"]: item["score"] for item in answer} for answer in pipe(texts)]
        logits = torch.tensor([[answer[label] / CONTRACT["temperature"] for label in LABELS] for answer in scores])
        return [by_label(row) for row in logits.softmax(-1).tolist()]

    return classify


def by_label(row: Sequence[float]) -> Probabilities:
    """Name the probabilities of one text."""
    return dict(zip(LABELS, row, strict=True))
