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

The share of a step's tokens that is padding, which is what packing rows without any could win at most, comes last.
"""

import argparse
import contextlib
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

import training as ways
from accuracy import none, word_vectors
from newsbert.core import cpu
from newsbert.core.settings import TrainSettings
from newsbert.data.dataset import Dataset, load_dataset
from newsbert.data.sources import AG_NEWS_LABELS
from newsbert.inference.runtime import sub_batches
from newsbert.inference.tokenization import SequenceTokenizer
from newsbert.training import base_model, fine_tuning, loop, sampler
from newsbert.training.checkpoints import Checkpoints
from newsbert.training.tokenizer import prepare_tokenizer

COMPILED_STEPS = 12
"""Steps in which `torch.compile` compiles, which are not counted."""


@contextlib.contextmanager
def autocast() -> Iterator[None]:
    plain, made = fine_tuning._FineTuning._logits, fine_tuning._FineTuning.__init__

    def logits(self: Any, split: Any, rows: Sequence[int]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return plain(self, split, rows)

    def without_copy(self: Any, model: Any, _: bool, *others: Any) -> None:
        made(self, model, False, *others)

    with (
        mock.patch.object(fine_tuning._FineTuning, "_logits", logits),
        mock.patch.object(fine_tuning._FineTuning, "__init__", without_copy),
    ):
        yield


@contextlib.contextmanager
def not_fused() -> Iterator[None]:
    plain = torch.optim.AdamW

    def optimizer(groups: Any, **_: Any) -> Any:
        return plain(groups, fused=False)

    with mock.patch.object(torch.optim, "AdamW", optimizer):
        yield


@contextlib.contextmanager
def compiled() -> Iterator[None]:
    plain = fine_tuning._Graph.__init__

    def compiling(self: Any, model: Any) -> None:
        plain(self, torch.compile(model, dynamic=True))

    with mock.patch.object(fine_tuning._Graph, "__init__", compiling), transformers_graph():
        yield


def transformers_graph() -> Any:
    return mock.patch.object(fine_tuning, "_graph", fine_tuning._Graph)


def random_order() -> Any:
    return mock.patch.object(loop, "_MEGABATCH", 1)


def at_once() -> Any:
    return mock.patch.dict(fine_tuning.STEP_TOKENS, {"cpu": 1 << 30})


WAYS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "newsbert train": (none, {}),
    "fp32": (none, {"precision": "fp32"}),
    "autocast": (autocast, {}),
    "word vectors tuned too": (word_vectors, {}),
    "AdamW not fused": (not_fused, {}),
    "random order": (random_order, {}),
    "a batch at once": (at_once, {}),
    "transformers' graph": (transformers_graph, {}),
    "the same with torch.compile": (compiled, {}),
    "16 rows a step": (none, {"batch_size": 16}),
    "64 rows a step": (none, {"batch_size": 64}),
}


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
    way, changed = WAYS[name]
    skipped = COMPILED_STEPS if way is compiled else ways.SKIPPED
    told: dict[str, Any] = {"batch_size": 32, "precision": "bf16"} | changed
    rows = told["batch_size"]
    settings = TrainSettings(**told, max_steps=examples // rows + skipped)
    clock = ways.Clock(rows, skipped)
    few = Dataset(dataset.name, dataset.label_names, dataset.train, ways.first(dataset, 64), dataset.test, "")
    with tempfile.TemporaryDirectory() as work, way():
        fine_tuning.fit(
            base_model.find("minilm"), few, tokenizer, settings, Checkpoints(Path(work)), clock, lambda: False
        )
    return clock.rate


def padding(lengths: Any, megabatch: int = sampler._MEGABATCH) -> float:
    """The share of padding in the tokens of an epoch's sub-batches."""
    with mock.patch.object(loop, "_MEGABATCH", megabatch):
        order = sampler.LengthGroupedSampler(lengths, 32, 1)
        computed = 0
        for step in range(1, order.steps + 1):
            own = [int(lengths[row]) for row in order.rows(step)]
            for part in sub_batches(own, fine_tuning.STEP_TOKENS["cpu"]):
                computed += len(part) * max(own[place] for place in part)
    return 1 - float(lengths.sum()) / computed


if __name__ == "__main__":
    main()
