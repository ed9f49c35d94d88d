"""Which checkpoint to keep where validation rows are few, and what techniques gain there.

    python benchmarks/few_labels.py ROWS [--rows 32 128 512] [--seeds 1 2 3 4 5] [--only NAME …] [--results FILE]

ROWS is a file of labelled AG News rows, such as `train.jsonl.gz` with integer labels. The test rows that `newsbert
train` would take of them are put aside, so that a choice made here leaves them unseen; 2,000 of the others are held
out. Each training is of so many of the rest, every class in its share, given as a file to what `newsbert train` reads
its rows with: validation rows are drawn from them. Of one training each rule keeps a checkpoint, and those are scored
on the held-out rows:

- best F1: the first with the best macro F1, of those with the same F1 the one with the least loss
- least loss: on the validation rows
- last
- N errors: the last of those whose accuracy is at most N standard errors below the best one's; `newsbert train` does so
  with macro F1 and one

Techniques are those of `accuracy.py` but for its average of the weights, and:

- fast head: the pooler and the classifier learn at ten times the rate
- 120 steps: at least so many instead of 60
- three averaged: the mean of the weights of three trainings with the same beginning, of other orders and dropout
  (https://arxiv.org/abs/2203.05482); its last step only

What is measured is appended to `--results`, and not measured again; the table is of all of it.
"""

import argparse
import contextlib
import copy
import itertools
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import transformers
from torch import Tensor

import accuracy
import learning_curve
import recorded
from newsbert.core import cpu, settings
from newsbert.core.events import Evaluation
from newsbert.core.settings import TrainSettings
from newsbert.data.dataset import Dataset, Split, load_dataset
from newsbert.data.sources import AG_NEWS_LABELS
from newsbert.evaluation import metrics
from newsbert.evaluation.metrics import Scores
from newsbert.inference.tokenization import SequenceTokenizer
from newsbert.training import base_model, fine_tuning, loop
from newsbert.training.checkpoints import Checkpoints
from newsbert.training.tokenizer import prepare_tokenizer

RESULTS = Path(__file__).parent / "results" / "few_labels.jsonl"
HELD_OUT = 2_000
FAST = 10.0
RULED = ("none", "layer-wise decay, 0.8")
"""Techniques whose trainings all rules are tried on; of the others the last step only is scored."""


@contextlib.contextmanager
def fast_head() -> Iterator[None]:
    def shares(names: list[str], _: float) -> dict[str, float]:
        return {name: FAST if "pooler" in name or "classifier" in name else 1.0 for name in names}

    with mock.patch.object(loop, "rate_shares", shares):
        yield


@contextlib.contextmanager
def steps_120() -> Iterator[None]:
    with mock.patch.object(settings, "LEAST_STEPS", 120):
        yield


TECHNIQUES: dict[str, Callable[[], Any]] = {
    **{name: technique for name, technique in accuracy.TECHNIQUES.items() if name != "averaged"},
    "fast head": fast_head,
    "120 steps": steps_120,
    "three averaged": accuracy.none,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="ROWS")
    parser.add_argument("--rows", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--only", nargs="+", default=["none"], choices=[*TECHNIQUES])
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(cpu.cores())
    everything = load_dataset(str(given.data), labels=AG_NEWS_LABELS)
    places = np.random.default_rng(0).permutation(len(everything.train))
    held_out = accuracy.rows_of(everything.train, places[:HELD_OUT], "held out")
    others = accuracy.rows_of(everything.train, places[HELD_OUT:], "others")
    for size in given.rows:
        for seed in given.seeds:
            for name in given.only:
                key = {"rows": size, "technique": name, "seed": seed}
                if not any(key.items() <= found.items() for found in recorded.read(given.results)):
                    recorded.add(given.results, key | measured(others, held_out, size, seed, name))
    rules(recorded.read(given.results))
    techniques(recorded.read(given.results))


def measured(others: Split, held_out: Split, size: int, seed: int, name: str) -> dict[str, Any]:
    """Train as the technique says; what its checkpoints score on the validation rows and on the held-out ones."""
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as directory:
        learning_curve.write(Path(directory, "train.jsonl"), learning_curve.drawn(others, size, seed))
        learning_curve.write(Path(directory, "test.jsonl"), held_out)
        rows = load_dataset(directory, labels=AG_NEWS_LABELS)
    with accuracy.decay(1.0)(), TECHNIQUES[name]():
        if name == "three averaged":
            runs = [trained(rows, seed, order) for order in (seed, seed + 1000, seed + 2000)]
            (model, tokenizer, kept), *_ = runs
            last = [found[-1][1] for _, _, found in runs]
            averaged = {key: sum((each[key] for each in last[1:]), last[0][key]) / len(last) for key in last[0]}
            kept = [(kept[-1][0], averaged)]
        else:
            model, tokenizer, kept = trained(rows, seed, seed)
    if name not in RULED:
        kept = kept[-1:]
    steps = [asdict(evaluated) for evaluated, _ in kept]
    asked = {rule(len(rows.validation), steps)["step"] for rule in RULES.values()}
    for step, (_, parameters) in zip(steps, kept, strict=True):
        if step["step"] in asked:
            model.load_state_dict(parameters, strict=False)
            scores = scored(model, tokenizer, rows.test)
            step |= {"held_out_accuracy": scores.accuracy, "held_out_loss": scores.loss}
    return {"validation_rows": len(rows.validation), "checkpoints": steps}


def trained(
    rows: Dataset, seed: int, order: int
) -> tuple[Any, SequenceTokenizer, list[tuple[Evaluation, dict[str, Tensor]]]]:
    """Train once; the model, its tokenizer, and each evaluation with the parameters then.

    Args:
        rows: All.
        seed: Of the classifier that it begins with.
        order: Seed of what is left.
    """
    kept: list[tuple[Evaluation, dict[str, Tensor]]] = []
    plain_evaluate, plain_classifier = loop._Loop._evaluate, fine_tuning.classifier

    def evaluate(self: Any) -> bool:
        found = plain_evaluate(self)
        parameters = {name: each.detach().clone() for name, each in self._parameters.items()}
        kept.append((self._progress.history.evaluations[-1], parameters))
        return found

    def classifier(*arguments: Any) -> Any:
        transformers.set_seed(seed)
        return plain_classifier(*arguments)

    base, settings = base_model.find("minilm"), TrainSettings(seed=order)
    with (
        tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as directory,
        mock.patch.object(loop._Loop, "_evaluate", evaluate),
        mock.patch.object(fine_tuning, "classifier", classifier),
    ):
        work = Path(directory)
        tokenizer = prepare_tokenizer(base, work, settings.max_length)
        found = fine_tuning.fit(
            base, rows, tokenizer, settings, Checkpoints(work / "checkpoints"), lambda _: None, lambda: False
        )
    return found.model, tokenizer, kept


def scored(model: Any, tokenizer: SequenceTokenizer, split: Split) -> Scores:
    """Score a split's rows, in bf16: as exact as the differences that are looked for, in a third of the time."""
    found = accuracy.predicted(copy.deepcopy(model).to(torch.bfloat16), tokenizer, split)
    return metrics.score(found, split.labels, AG_NEWS_LABELS)


Rule = Callable[[int, list[dict[str, Any]]], dict[str, Any]]
"""Which checkpoint it keeps, of the number of validation rows and all checkpoints."""


def errors(count: float) -> Rule:
    """A rule: the last of those whose accuracy is at most so many standard errors below the best one's."""

    def kept(rows: int, found: list[dict[str, Any]]) -> dict[str, Any]:
        best = max(each["accuracy"] for each in found)
        least = best - count * loop.standard_error(best, rows)
        return [each for each in found if each["accuracy"] >= least][-1]

    return kept


RULES: dict[str, Rule] = {
    "best F1": lambda _, found: max(found, key=lambda each: (each["f1_macro"], -each["loss"])),
    "least loss": lambda _, found: min(found, key=lambda each: each["loss"]),
    "1 error": errors(1),
    "2 errors": errors(2),
    "last": lambda _, found: found[-1],
}


def rules(results: list[dict[str, Any]]) -> None:
    """Print what each rule would have kept, of the same trainings."""
    print("\n| rows | validation rows | technique: rule | held-out accuracy, mean | by seed | loss | steps kept |")
    print("|---|---|---|---|---|---|---|")
    for size in sorted({each["rows"] for each in results}):
        for technique, (name, rule) in itertools.product(RULED, RULES.items()):
            of = [each for each in results if (each["rows"], each["technique"]) == (size, technique)]
            kept = [rule(each["validation_rows"], each["checkpoints"]) for each in of]
            if of:
                steps = ", ".join(str(each["step"]) for each in kept)
                line(size, of[0]["validation_rows"], f"{technique}: {name}", kept, steps)


def techniques(results: list[dict[str, Any]]) -> None:
    """Print what the last step of each technique is worth, and what it gains on the same seeds."""
    print("\n| rows | validation rows | technique | held-out accuracy, mean | by seed | loss | gain, mean |")
    print("|---|---|---|---|---|---|---|")
    last = {(each["rows"], each["technique"], each["seed"]): each["checkpoints"][-1] for each in results}
    for size in sorted({each["rows"] for each in results}):
        for name in TECHNIQUES:
            kept = {seed: found for (rows, own, seed), found in last.items() if (rows, own) == (size, name)}
            if kept:
                gains = [
                    found["held_out_accuracy"] - plain["held_out_accuracy"]
                    for seed, found in kept.items()
                    if (plain := last.get((size, "none", seed)))
                ]
                validation = next(each["validation_rows"] for each in results if each["rows"] == size)
                line(size, validation, name, list(kept.values()), f"{statistics.fmean(gains):+.4f}" if gains else "-")


def line(size: int, validation: int, name: str, kept: list[dict[str, Any]], end: str) -> None:
    """Print a row of a table."""
    found = [each["held_out_accuracy"] for each in kept]
    average, held_out_loss = statistics.fmean(found), statistics.fmean(each["held_out_loss"] for each in kept)
    by_seed = ", ".join(f"{each:.4f}" for each in found)
    print(f"| {size} | {validation} | {name} | {average:.4f} | {by_seed} | {held_out_loss:.3f} | {end} |")


if __name__ == "__main__":
    main()
