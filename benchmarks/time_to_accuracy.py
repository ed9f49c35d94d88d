"""Measure the time until a training reaches an accuracy on held-out rows, next to transformers' `Trainer`.

    python benchmarks/time_to_accuracy.py ROWS [--accuracy 0.93] [--max-train-samples N] [--epochs 1 2]

ROWS is a file of labelled AG News rows, such as `train.jsonl.gz` with integer labels. Both train the same encoder on
the same rows, with the same number of threads. `Trainer` runs at its defaults. Every 4,000 rows, both are scored on the
same 2,000 held-out rows; the seconds do not include this. A training ends when it reaches the accuracy, or after its
last epoch (3 by default in `Trainer`). With fewer epochs, newsbert reaches an accuracy sooner, because the learning
rate falls until the end of the last epoch.
"""

import argparse
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

import training
from newsbert.core import cpu
from newsbert.core.events import Evaluation, Event, Step
from newsbert.core.settings import TrainSettings
from newsbert.data.dataset import Dataset, Split, load_dataset
from newsbert.data.sources import AG_NEWS_LABELS
from newsbert.inference.tokenization import SequenceTokenizer, pad
from newsbert.training import base_model, fine_tuning
from newsbert.training.checkpoints import Checkpoints
from newsbert.training.context import TrainingContext
from newsbert.training.tokenizer import prepare_tokenizer
from newsbert.training.trainer import Trainer

HELD_OUT = 2_000
SCORED_EVERY = 4_000
"""Rows between two evaluations of the held-out rows."""


@dataclass
class Progress:
    """Progress of a training."""

    goal: float
    rows: int = 0
    accuracy: float = 0.0
    seconds: float = 0.0
    _started: float = field(default_factory=time.perf_counter)

    def add_step(self, rows: int) -> None:
        """Record a step, in total so many rows."""
        now = time.perf_counter()
        if not self.done:  # a training makes one more step before it stops
            self.rows, self.seconds, self._started = rows, self.seconds + now - self._started, now

    def add_score(self, accuracy: float) -> None:
        """Record an accuracy on the held-out rows."""
        if not self.done:
            self.accuracy, self._started = accuracy, time.perf_counter()
            print(f"{self.rows} rows, {self.seconds:.0f} s: {accuracy:.4f}", flush=True)

    @property
    def done(self) -> bool:
        """Whether the accuracy is reached."""
        return self.accuracy >= self.goal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--accuracy", type=float, default=0.93)
    parser.add_argument("--max-train-samples", type=int)
    parser.add_argument("--epochs", type=float, nargs="+", default=[1.0, 2.0], help="epochs of newsbert's trainings")
    arguments = parser.parse_args()
    torch.set_num_threads(cpu.cores())
    dataset = load_dataset(str(arguments.rows.resolve()), labels=AG_NEWS_LABELS, samples=arguments.max_train_samples)
    held_out = dataset.validation
    scored = Split(held_out.texts[:HELD_OUT], held_out.labels[:HELD_OUT], f"{held_out.digest} {HELD_OUT}")
    dataset = Dataset(dataset.name, dataset.label_names, dataset.train, scored, dataset.test, "")
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as directory:
        os.chdir(directory)
        os.environ["NEWSBERT_CACHE_DIR"] = directory
        tokenizer = prepare_tokenizer(base_model.find("minilm"), Path(directory), 128)
        trainings = {
            **{
                f"newsbert train --epochs {epochs:g}": run_newsbert(
                    dataset, tokenizer, Progress(arguments.accuracy), epochs
                )
                for epochs in arguments.epochs
            },
            "transformers.Trainer, defaults": run_transformers(dataset, tokenizer, Progress(arguments.accuracy)),
        }
    print(f"\n{cpu.cores()} threads, {len(dataset.train)} rows, {len(scored)} held-out rows\n")
    print("| method | rows read | seconds | accuracy |\n|---|---|---|---|")
    for name, progress in trainings.items():
        print(f"| {name} | {progress.rows} | {progress.seconds:.0f} | {progress.accuracy:.4f} |")


def run_newsbert(dataset: Dataset, tokenizer: SequenceTokenizer, progress: Progress, epochs: float) -> Progress:
    """Train as `newsbert train` does, with other evaluations."""
    settings = TrainSettings(epochs=epochs)

    def on_event(event: Event) -> None:
        if isinstance(event, Step):
            progress.add_step(round(event.epoch * len(dataset.train)))
        elif isinstance(event, Evaluation):
            progress.add_score(event.accuracy)

    class Scoring(Trainer):
        evaluations_per_epoch = len(dataset.train) / SCORED_EVERY

    context = TrainingContext(settings, dataset, base_model.find("minilm"), on_event, lambda: progress.done)
    with tempfile.TemporaryDirectory() as work:
        fine_tuning.fit(context, tokenizer, Checkpoints(Path(work)), trainer=Scoring)
    return progress


def run_transformers(dataset: Dataset, tokenizer: SequenceTokenizer, progress: Progress) -> Progress:
    """Train with transformers' `Trainer` at its defaults."""
    ids = tokenizer.encode(list(dataset.train.texts))
    rows = [{"input_ids": row, "labels": int(label)} for row, label in zip(ids, dataset.train.labels, strict=True)]
    model = fine_tuning.load_classifier(base_model.find("minilm"), dataset.label_names)
    model.requires_grad_(True)

    class Scoring(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:
            progress.add_step(8 * state.global_step)
            if 8 * state.global_step % SCORED_EVERY == 0 or state.global_step == state.max_steps:
                progress.add_score(accuracy(model, tokenizer, dataset.validation))
                control.should_training_stop = progress.done

    with tempfile.TemporaryDirectory() as work:
        arguments = transformers.TrainingArguments(
            work, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True, logging_strategy="no"
        )
        transformers.Trainer(
            model, arguments, training.collate(tokenizer), train_dataset=rows, callbacks=[Scoring()]
        ).train()
    return progress


@torch.inference_mode()
def accuracy(model: Any, tokenizer: SequenceTokenizer, split: Split) -> float:
    """Return the accuracy of a model."""
    model.eval()
    ids = tokenizer.encode(list(split.texts))
    order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
    num_right = 0
    for start in range(0, len(order), 32):
        places = order[start : start + 32]
        input_ids, mask = (torch.from_numpy(array) for array in pad([ids[place] for place in places], tokenizer.pad_id))
        labels = model(input_ids=input_ids, attention_mask=mask).logits.argmax(1)
        num_right += int((labels == torch.from_numpy(split.labels[places])).sum())
    model.train()
    return num_right / len(ids)


if __name__ == "__main__":
    main()
