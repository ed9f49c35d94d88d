"""TorchServe handler like that of the system that newsbert replaces, written from its description.

It runs eager PyTorch in fp32, builds a tokenizer for every request, pads every text to 160 tokens, and processes one
request at a time. It gets form data and returns the label only.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, BertTokenizer

MAX_LENGTH = 160


class NewsHandler:
    """Handler; every worker of TorchServe creates one."""

    initialized = False

    def initialize(self, context: Any) -> None:
        """Load the model from the unpacked archive."""
        torch.set_num_threads(int(os.environ["NEWSBERT_BENCH_THREADS"]))
        self.directory = str(context.system_properties["model_dir"])
        self.mapping = json.loads((Path(self.directory) / "class_mapping.json").read_text(encoding="utf-8"))
        self.model = AutoModelForSequenceClassification.from_pretrained(
            self.directory, dtype=torch.float32, trust_remote_code=False
        ).eval()
        self.initialized = True

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[str]:
        """Answer a request: preprocess, infer, postprocess."""
        text = data[0]["data"]
        if isinstance(text, bytes | bytearray):
            text = text.decode("utf-8")
        tokenizer = BertTokenizer.from_pretrained(self.directory, trust_remote_code=False)
        inputs = tokenizer(
            text, max_length=MAX_LENGTH, padding="max_length", truncation=True, return_tensors="pt"
        )  # fmt: skip
        with torch.no_grad():
            logits = self.model(inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        return [self.mapping[str(int(logits.argmax(1)))]]
