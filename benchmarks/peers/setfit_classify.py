"""SetFit as its paper runs it: labels of rows, after contrastive tuning of a sentence encoder on other rows.

    python setfit_classify.py ENCODER TRAIN TEST SEED

TRAIN and TEST have a JSON object with `text` and integer `label` on each line. Prints accuracy and seconds as JSON.
Source: https://arxiv.org/abs/2209.11055 (one epoch, 20 pairs a row of each kind, batches of 16).
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments


def rows(file: str) -> list[dict[str, Any]]:
    """The rows of a file."""
    return [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]


def main() -> None:
    encoder, train, test, seed = sys.argv[1:]
    model = SetFitModel.from_pretrained(encoder)
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as directory:
        arguments = TrainingArguments(
            output_dir=directory, batch_size=16, num_epochs=1, num_iterations=20, seed=int(seed),
            save_strategy="no", report_to="none", logging_strategy="no", show_progress_bar=False,
        )  # fmt: skip
        started = time.perf_counter()
        Trainer(model=model, args=arguments, train_dataset=Dataset.from_list(rows(train))).train()
        seconds = time.perf_counter() - started
    asked = rows(test)
    found = model.predict([row["text"] for row in asked], as_numpy=True)
    right = sum(int(label) == row["label"] for label, row in zip(found, asked, strict=True))
    print(json.dumps({"accuracy": right / len(asked), "seconds": seconds}))


if __name__ == "__main__":
    main()
