"""How long a training takes to an accuracy on rows held out of it, next to transformers' Trainer at its defaults.

    python benchmarks/time_to_accuracy.py ROWS [--accuracy 0.93] [--max-train-samples N] [--epochs 1 2]

ROWS is a file of labelled AG News rows, such as `train.jsonl.gz` with integer labels. Both tune the same encoder on
the same rows, in the same number of threads, are scored on the same 2,000 of them, and end when they are as accurate as
that, or at the end of their epochs (the Trainer's default is 3). They are scored every 4,000 rows, which is not in the
seconds. An accuracy is reached the sooner the fewer the epochs: the learning rate falls until the end of the last.
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

import training as ways
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
"""Rows read between two looks at those that are held out."""


@dataclass
class Progress:
    """What a training has come to."""

    goal: float
    rows: int = 0
    accuracy: float = 0.0
    seconds: float = 0.0
    _began: float = field(default_factory=time.perf_counter)

    def stepped(self, rows: int) -> None:
        """After a step."""
        now = time.perf_counter()
        if not self.done:  # the step in which it hears that it is
            self.rows, self.seconds, self._began = rows, self.seconds + now - self._began, now

    def scored(self, accuracy: float) -> None:
        """After the rows that are held out were scored."""
        if not self.done:
            self.accuracy, self._began = accuracy, time.perf_counter()
            print(f"{self.rows} rows, {self.seconds:.0f} s: {accuracy:.4f}", flush=True)

    @property
    def done(self) -> bool:
        """Whether it is as accurate as it should be."""
        return self.accuracy >= self.goal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--accuracy", type=float, default=0.93)
    parser.add_argument("--max-train-samples", type=int)
    parser.add_argument("--epochs", type=float, nargs="+", default=[1.0, 2.0], help="of newsbert's trainings")
    given = parser.parse_args()
    torch.set_num_threads(cpu.cores())
    dataset = load_dataset(str(given.rows.resolve()), labels=AG_NEWS_LABELS, samples=given.samples)
    held_out = dataset.validation
    few = Split(held_out.texts[:HELD_OUT], held_out.labels[:HELD_OUT], f"{held_out.digest} {HELD_OUT}")
    dataset = Dataset(dataset.name, dataset.label_names, dataset.train, few, dataset.test, "")
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as directory:
        os.chdir(directory)
        os.environ["NEWSBERT_CACHE_DIR"] = directory
        tokenizer = prepare_tokenizer(base_model.find("minilm"), Path(directory), 128)
        found = {
            **{
                f"newsbert train --epochs {epochs:g}": own(dataset, tokenizer, Progress(given.accuracy), epochs)
                for epochs in given.epochs
            },
            "transformers.Trainer, defaults": trainer(dataset, tokenizer, Progress(given.accuracy)),
        }
    print(f"\n{cpu.cores()} threads, {len(dataset.train)} rows, {given.accuracy:.0%} of {len(few)} held-out rows\n")
    print("| way | rows read | seconds | accuracy |\n|---|---|---|---|")
    for name, progress in found.items():
        print(f"| {name} | {progress.rows} | {progress.seconds:.0f} | {progress.accuracy:.4f} |")


def own(dataset: Dataset, tokenizer: SequenceTokenizer, progress: Progress, epochs: float) -> Progress:
    """Tune as `newsbert train` does, but for how often it is scored."""
    settings = TrainSettings(epochs=epochs)

    def on_event(event: Event) -> None:
        if isinstance(event, Step):
            progress.stepped(round(event.epoch * len(dataset.train)))
        elif isinstance(event, Evaluation):
            progress.scored(event.accuracy)

    class Scoring(Trainer):
        evaluations_per_epoch = len(dataset.train) / SCORED_EVERY

    context = TrainingContext(settings, dataset, base_model.find("minilm"), on_event, lambda: progress.done)
    with tempfile.TemporaryDirectory() as work:
        fine_tuning.fit(context, tokenizer, Checkpoints(Path(work)), trainer=Scoring)
    return progress


def trainer(dataset: Dataset, tokenizer: SequenceTokenizer, progress: Progress) -> Progress:
    """Tune with transformers' Trainer as it is when nothing is said."""
    ids = tokenizer.encode(list(dataset.train.texts))
    rows = [{"input_ids": each, "labels": int(label)} for each, label in zip(ids, dataset.train.labels, strict=True)]
    model = fine_tuning.load_classifier(base_model.find("minilm"), dataset.label_names)
    model.requires_grad_(True)

    class Scoring(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:
            progress.stepped(8 * state.global_step)
            if 8 * state.global_step % SCORED_EVERY == 0 or state.global_step == state.max_steps:
                progress.scored(accuracy(model, tokenizer, dataset.validation))
                control.should_training_stop = progress.done

    with tempfile.TemporaryDirectory() as work:
        arguments = transformers.TrainingArguments(
            work, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True, logging_strategy="no"
        )
        transformers.Trainer(
            model, arguments, ways.collate(tokenizer), train_dataset=rows, callbacks=[Scoring()]
        ).train()
    return progress


@torch.inference_mode()
def accuracy(model: Any, tokenizer: SequenceTokenizer, split: Split) -> float:
    """The share of the rows that a model labels right."""
    model.eval()
    ids = tokenizer.encode(list(split.texts))
    order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
    right = 0
    for start in range(0, len(order), 32):
        places = order[start : start + 32]
        input_ids, mask = (torch.from_numpy(each) for each in pad([ids[place] for place in places], tokenizer.pad_id))
        labels = model(input_ids=input_ids, attention_mask=mask).logits.argmax(1)
        right += int((labels == torch.from_numpy(split.labels[places])).sum())
    model.train()
    return right / len(ids)


if __name__ == "__main__":
    main()
