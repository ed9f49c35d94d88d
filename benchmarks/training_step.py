"""What each choice in a step of `newsbert train` buys: every way differs from it in one thing, and they take turns.

    python benchmarks/training_step.py ROWS [--rounds 3] [--examples 960] [--only NAME …]

ROWS is a file of labelled AG News rows, such as `train.jsonl.gz` with integer labels. Examples a second of steps of
full fine-tuning, evaluation and export not counted, of:

- newsbert train: as it is on this machine, in bf16
- fp32
- autocast: the parameters in fp32, cast in every step as `torch.autocast` does, instead of a copy of them in bf16
- word vectors tuned too: the table is half of the encoder's parameters
- AdamW not fused
- random order: rows of all lengths share a batch
- a batch at once: no sub-batches of 4,096 tokens at most
- transformers' graph: its `BertForSequenceClassification`, whose last layer computes all tokens
- the same with torch.compile: shapes differ from step to step, which it is told; a C++ compiler is needed
- 16 rows a step, 64 rows a step

The fraction of a step's tokens that is padding, which is what packing rows without any could win at most, comes last.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

import training as ways
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
from newsbert.training.optimizer import LAYER_DECAY, make_optimizer
from newsbert.training.sampler import MEGABATCH, LengthGroupedSampler
from newsbert.training.tokenizer import prepare_tokenizer
from newsbert.training.trainer import Trainer

COMPILED_STEPS = 12
"""Steps in which `torch.compile` compiles, which are not counted."""


class Autocast(ClassificationTask):
    """The parameters in fp32, cast in every step."""

    def __init__(self, model: Any, _: bool, *others: Any) -> None:
        super().__init__(model, False, *others)

    def compute_logits(self, split: Any, rows: Sequence[int]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().compute_logits(split, rows)


class AtOnce(ClassificationTask):
    """No sub-batches."""

    max_tokens: ClassVar[Mapping[str, int]] = {"cpu": 1 << 30}


class Transformers(ClassificationTask):
    """Its own graph."""

    def make_graph(self, model: Any) -> TransformersGraph:
        return TransformersGraph(model)


class Compiled(ClassificationTask):
    """The same, compiled."""

    def make_graph(self, model: Any) -> TransformersGraph:
        return TransformersGraph(torch.compile(model, dynamic=True))


class NotFused(Trainer):
    """AdamW as a loop over parameters."""

    def make_optimizer(self, parameters: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        return make_optimizer(parameters, LAYER_DECAY, fused=False)


class RandomOrder(Trainer):
    """Rows of all lengths share a batch."""

    def make_sampler(self, lengths: IntArray) -> LengthGroupedSampler:
        return LengthGroupedSampler(lengths, self.settings.rows_a_step(len(lengths)), self.settings.seed, megabatch=1)


def load_with_word_vectors(base: BaseModel, label_names: tuple[str, ...]) -> Any:
    """Load a classifier whose table of word vectors is tuned, too."""
    model = fine_tuning.load_classifier(base, label_names)
    model.get_input_embeddings().requires_grad_(True)
    return model


WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "newsbert train": ({}, {}),
    "fp32": ({}, {"precision": "fp32"}),
    "autocast": ({"task": Autocast}, {}),
    "word vectors tuned too": ({"load": load_with_word_vectors}, {}),
    "AdamW not fused": ({"trainer": NotFused}, {}),
    "random order": ({"trainer": RandomOrder}, {}),
    "a batch at once": ({"task": AtOnce}, {}),
    "transformers' graph": ({"task": Transformers}, {}),
    "the same with torch.compile": ({"task": Compiled}, {}),
    "16 rows a step": ({}, {"batch_size": 16}),
    "64 rows a step": ({}, {"batch_size": 64}),
}
"""What differs: hooks of `fine_tuning.fit`, and settings."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--examples", type=int, default=960)
    parser.add_argument("--only", nargs="+", default=[*WAYS], choices=[*WAYS])
    given = parser.parse_args()
    torch.set_num_threads(cpu.cores())
    dataset = load_dataset(str(given.rows.resolve()), labels=AG_NEWS_LABELS, samples=15_000)
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as directory:
        os.environ["NEWSBERT_CACHE_DIR"] = directory
        Path(directory, "work").mkdir()
        tokenizer = prepare_tokenizer(base_model.find("minilm"), Path(directory, "work"), 128)
        found: dict[str, list[float]] = {name: [] for name in given.only}
        for _ in range(given.rounds):
            for name in given.only:
                found[name].append(examples_a_second(dataset, tokenizer, name, given.examples))
        lengths = np.array([len(ids) for ids in tokenizer.encode(list(dataset.train.texts))], np.int32)
    print(f"{cpu.cores()} threads, {given.examples} examples a visit, {given.rounds} rounds\n")
    print("| way | examples/s, median | range | of the first's, median of the rounds' |\n|---|---|---|---|")
    for name, values in found.items():
        ratio = statistics.median(one / other for one, other in zip(values, found[given.only[0]], strict=True))
        print(f"| {name} | {statistics.median(values):.0f} | {min(values):.0f} to {max(values):.0f} | {ratio:.2f} |")
    print(f"\npadding: {padding(lengths):.1%} of the tokens of a step; {padding(lengths, 1):.1%} in random order")


def examples_a_second(dataset: Dataset, tokenizer: SequenceTokenizer, name: str, examples: int) -> float:
    """Examples a second of one way, once."""
    hooks, changed = WAYS[name]
    skipped = COMPILED_STEPS if hooks.get("task") is Compiled else ways.SKIPPED
    values: dict[str, Any] = {"batch_size": 32, "precision": "bf16"} | changed
    rows = values["batch_size"]
    settings = TrainSettings(**values, max_steps=examples // rows + skipped)
    clock = ways.Clock(rows, skipped)
    few = Dataset(dataset.name, dataset.label_names, dataset.train, ways.first(dataset, 64), dataset.test, "")
    context = TrainingContext(settings, few, base_model.find("minilm"), clock)
    with tempfile.TemporaryDirectory() as work:
        fine_tuning.fit(context, tokenizer, Checkpoints(Path(work)), **hooks)
    return clock.rate


def padding(lengths: Any, megabatch: int = MEGABATCH) -> float:
    """Return the fraction of the tokens of an epoch's sub-batches that is padding."""
    sampler = LengthGroupedSampler(lengths, 32, 1, megabatch)
    computed = 0
    for step in range(1, sampler.steps + 1):
        own = [int(lengths[row]) for row in sampler.rows(step)]
        for part in sub_batches(own, ClassificationTask.max_tokens["cpu"]):
            computed += len(part) * max(own[place] for place in part)
    return 1 - float(lengths.sum()) / computed


if __name__ == "__main__":
    main()
