"""Train SetFit as in its paper, and measure its accuracy on test rows.

    python setfit_classify.py ENCODER TRAIN TEST SEED

TRAIN and TEST have a JSON object with `text` and integer `label` on each line. The script prints accuracy and
seconds as JSON.

Source: https://arxiv.org/abs/2209.11055 (one epoch, 20 pairs of either kind per row, batches of 16).
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments


def read_rows(file: str) -> list[dict[str, Any]]:
    """Return the rows of a file."""
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
        Trainer(model=model, args=arguments, train_dataset=Dataset.from_list(read_rows(train))).train()
        seconds = time.perf_counter() - started
    test_rows = read_rows(test)
    labels = model.predict([row["text"] for row in test_rows], as_numpy=True)
    num_right = sum(int(label) == row["label"] for label, row in zip(labels, test_rows, strict=True))
    print(json.dumps({"accuracy": num_right / len(test_rows), "seconds": seconds}))


if __name__ == "__main__":
    main()
