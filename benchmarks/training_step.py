"""Measure the effect of every choice in a training step of `newsbert train`.

    python benchmarks/training_step.py ROWS [--rounds 3] [--examples 1920] [--only NAME …]

ROWS is a file of labelled AG News rows, such as `train.jsonl.gz` with integer labels. The script measures examples per
second of the steps of full fine-tuning, without evaluation and export. Every variant differs from `newsbert train` in
one choice. The variants take turns:

- newsbert train: in bf16
- fp32
- embeddings trained too: those of words are half of the encoder's parameters
- random order: batches of rows of all lengths
- no sub-batches: steps may exceed 4,096 tokens at a time
- transformers' graph: `BertForSequenceClassification`, whose last layer computes all tokens
- 16 rows per step, 32 rows per step

Last, the script prints the fraction of the tokens of a step that is padding. Packing could gain no more than that.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

import training
from newsbert.core import cpu
from newsbert.core.settings import TrainSettings
from newsbert.core.types import IntArray
from newsbert.data.dataset import Dataset, load_dataset
from newsbert.data.sources import AG_NEWS_LABELS
from newsbert.inference.runtime import sub_batches
from newsbert.inference.tokenization import SequenceTokenizer
from newsbert.training import base_model, fine_tuning
from newsbert.training.base_model import BaseModel
from newsbert.training.checkpoints import Checkpoints
from newsbert.training.context import TrainingContext
from newsbert.training.fine_tuning import ClassificationTask
from newsbert.training.graphs import TransformersGraph
from newsbert.training.sampler import MEGABATCH, LengthGroupedSampler
from newsbert.training.tokenizer import prepare_tokenizer
from newsbert.training.trainer import Trainer


class WholeBatchTask(ClassificationTask):
    """Task without sub-batches."""

    max_tokens: ClassVar[Mapping[str, int]] = {"cpu": 1 << 30}


class TransformersTask(ClassificationTask):
    """Task with transformers' graph."""

    def make_graph(self, model: Any) -> TransformersGraph:
        return TransformersGraph(model)


class RandomOrderTrainer(Trainer):
    """Trainer with batches of rows of all lengths."""

    def make_sampler(self, lengths: IntArray) -> LengthGroupedSampler:
        batch_size = self.settings.choose_batch_size(len(lengths))
        return LengthGroupedSampler(lengths, batch_size, self.settings.seed, megabatch=1)


def load_with_embeddings(base: BaseModel, label_names: tuple[str, ...]) -> Any:
    """Load a classifier whose embeddings are trained too."""
    model = fine_tuning.load_classifier(base, label_names)
    model.bert.embeddings.requires_grad_(True)
    return model


VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "newsbert train": ({}, {}),
    "fp32": ({}, {"precision": "fp32"}),
    "embeddings trained too": ({"load": load_with_embeddings}, {}),
    "random order": ({"trainer": RandomOrderTrainer}, {}),
    "no sub-batches": ({"task": WholeBatchTask}, {}),
    "transformers' graph": ({"task": TransformersTask}, {}),
    "16 rows per step": ({}, {"batch_size": 16}),
    "32 rows per step": ({}, {"batch_size": 32}),
}
"""Differences from `newsbert train`: hooks of `fine_tuning.fit`, and settings."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--examples", type=int, default=1920)
    parser.add_argument("--only", nargs="+", default=[*VARIANTS], choices=[*VARIANTS])
    arguments = parser.parse_args()
    torch.set_num_threads(cpu.cores())
    dataset = load_dataset(str(arguments.rows.resolve()), labels=AG_NEWS_LABELS, samples=15_000)
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as directory:
        os.environ["NEWSBERT_CACHE_DIR"] = directory
        Path(directory, "work").mkdir()
        tokenizer = prepare_tokenizer(base_model.find("minilm"), Path(directory, "work"), 128)
        rates: dict[str, list[float]] = {name: [] for name in arguments.only}
        for _ in range(arguments.rounds):
            for name in arguments.only:
                rates[name].append(measure_rate(dataset, tokenizer, name, arguments.examples))
        lengths = np.array([len(ids) for ids in tokenizer.encode(list(dataset.train.texts))], np.int32)
    print(f"{cpu.cores()} threads, {arguments.examples} examples per measurement, {arguments.rounds} rounds\n")
    print("| variant | examples/s, median | range | ratio to the first, median of the rounds |\n|---|---|---|---|")
    first = rates[arguments.only[0]]
    for name, values in rates.items():
        ratio = statistics.median(value / other for value, other in zip(values, first, strict=True))
        print(f"| {name} | {statistics.median(values):.0f} | {min(values):.0f} to {max(values):.0f} | {ratio:.2f} |")
    print(f"\npadding: {padding(lengths):.1%} of the tokens of a step; {padding(lengths, 1):.1%} in random order")


def measure_rate(dataset: Dataset, tokenizer: SequenceTokenizer, name: str, examples: int) -> float:
    """Return examples per second of a variant."""
    hooks, changed = VARIANTS[name]
    values: dict[str, Any] = {"batch_size": 64, "precision": "bf16"} | changed
    rows = values["batch_size"]
    settings = TrainSettings(**values, max_steps=examples // rows + training.SKIPPED)
    clock = training.Clock(rows)
    validation = training.cut_validation(dataset, 64)
    short = Dataset(dataset.name, dataset.label_names, dataset.train, validation, dataset.test, "")
    context = TrainingContext(settings, short, base_model.find("minilm"), clock)
    with tempfile.TemporaryDirectory() as work:
        fine_tuning.fit(context, tokenizer, Checkpoints(Path(work)), **hooks)
    return clock.rate


def padding(lengths: Any, megabatch: int = MEGABATCH) -> float:
    """Return the fraction of the tokens of an epoch's sub-batches that is padding."""
    sampler = LengthGroupedSampler(lengths, 64, 1, megabatch)
    computed = 0
    for step in range(1, sampler.steps + 1):
        step_lengths = [int(lengths[row]) for row in sampler.rows(step)]
        for places in sub_batches(step_lengths, ClassificationTask.max_tokens["cpu"]):
            computed += len(places) * max(step_lengths[place] for place in places)
    return 1 - float(lengths.sum()) / computed


if __name__ == "__main__":
    main()
