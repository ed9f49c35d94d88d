"""A TorchServe handler as the system had it that newsbert replaces, written afresh from the description of it.

Eager fp32; the tokenizer is built again for every request; every text is padded to 160 tokens; one request at a time;
form data in, the bare label out. That it neglected all but the first request of a batch does not show at batch size 1.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, BertTokenizer

MAX_LENGTH = 160


class NewsHandler:
    """TorchServe makes one in every worker."""

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
