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

Techniques are none, and the layer-wise decay of the learning rate (https://arxiv.org/abs/1801.06146), which `newsbert
train` has at 0.8. docs/explanation/benchmarks.md has others that were tried, with the revisions that measured them.

What is measured is appended to `--results`, and not measured again; the table is of all of it.
"""

import argparse
import copy
import itertools
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import learning_curve
import recorded
from newsbert.core import cpu
from newsbert.core.events import Evaluation
from newsbert.core.settings import TrainSettings
from newsbert.data.dataset import Dataset, Split, load_dataset
from newsbert.data.sources import AG_NEWS_LABELS
from newsbert.evaluation import metrics
from newsbert.evaluation.calibration import softmax
from newsbert.evaluation.metrics import Scores
from newsbert.inference.runtime import sub_batches
from newsbert.inference.tokenization import SequenceTokenizer, pad
from newsbert.training import base_model, fine_tuning
from newsbert.training.checkpoints import Checkpoints
from newsbert.training.context import TrainingContext
from newsbert.training.graphs import make_graph
from newsbert.training.optimizer import make_optimizer
from newsbert.training.tokenizer import prepare_tokenizer
from newsbert.training.trainer import Trainer, standard_error

RESULTS = Path(__file__).parent / "results" / "few_labels.jsonl"
HELD_OUT = 2_000
FAST = 10.0
TECHNIQUES = {"none": 1.0, "layer-wise decay, 0.8": 0.8, "layer-wise decay, 0.9": 0.9}
"""By what the learning rate of a layer is multiplied for the one below it."""


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
    held_out = rows_of(everything.train, places[:HELD_OUT], "held out")
    others = rows_of(everything.train, places[HELD_OUT:], "others")
    for size in given.rows:
        for seed in given.seeds:
            for name in given.only:
                key = {"rows": size, "technique": name, "seed": seed}
                if not any(key.items() <= found.items() for found in recorded.read(given.results)):
                    recorded.add(given.results, key | measured(others, held_out, size, seed, name))
    rules(recorded.read(given.results))
    techniques(recorded.read(given.results))


def rows_of(split: Split, places: Any, name: str) -> Split:
    """Return some rows of a split."""
    return Split([split.texts[int(place)] for place in places], split.labels[places], f"{split.digest} {name}")


def measured(others: Split, held_out: Split, size: int, seed: int, name: str) -> dict[str, Any]:
    """Train as the technique says; what its checkpoints score on the validation rows and on the held-out ones."""
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as directory:
        learning_curve.write(Path(directory, "train.jsonl"), learning_curve.drawn(others, size, seed))
        learning_curve.write(Path(directory, "test.jsonl"), held_out)
        rows = load_dataset(directory, labels=AG_NEWS_LABELS)
    model, tokenizer, kept = train(rows, TECHNIQUES[name], seed)
    steps = [asdict(evaluated) for evaluated, _ in kept]
    asked = {rule(len(rows.validation), steps)["step"] for rule in RULES.values()}
    for step, (_, parameters) in zip(steps, kept, strict=True):
        if step["step"] in asked:
            model.load_state_dict(parameters, strict=False)
            scores = scored(model, tokenizer, rows.test)
            step |= {"held_out_accuracy": scores.accuracy, "held_out_loss": scores.loss}
    return {"validation_rows": len(rows.validation), "checkpoints": steps}


def train(
    rows: Dataset, layer_decay: float, seed: int
) -> tuple[Any, SequenceTokenizer, list[tuple[Evaluation, dict[str, Tensor]]]]:
    """Train once; return the model, its tokenizer, and each evaluation with the parameters then."""
    kept: list[tuple[Evaluation, dict[str, Tensor]]] = []

    class Recording(Trainer):
        def make_optimizer(self, parameters: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
            return make_optimizer(parameters, layer_decay)

        def evaluate(self) -> bool:
            is_finite = super().evaluate()
            parameters = {name: value.detach().clone() for name, value in self.parameters.items()}
            kept.append((self.state.history.evaluations[-1], parameters))
            return is_finite

    context = TrainingContext(TrainSettings(seed=seed), rows, base_model.find("minilm"))
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as directory:
        work = Path(directory)
        tokenizer = prepare_tokenizer(context.base_model, work, context.settings.max_length)
        trained = fine_tuning.fit(context, tokenizer, Checkpoints(work / "checkpoints"), trainer=Recording)
    return trained.model, tokenizer, kept


def scored(model: Any, tokenizer: SequenceTokenizer, split: Split) -> Scores:
    """Score a split's rows, in bf16: as exact as the differences that are looked for, in a third of the time."""
    ids = tokenizer.encode(list(split.texts))
    logits = np.empty((len(ids), len(AG_NEWS_LABELS)), np.float32)
    graph = make_graph(copy.deepcopy(model).to(torch.bfloat16)).eval()
    with torch.inference_mode():
        for part in sub_batches([len(own) for own in ids], 4096):
            input_ids, mask = (torch.from_numpy(array) for array in pad([ids[row] for row in part], 0))
            logits[part] = graph(input_ids, mask).float().numpy()
    return metrics.score(softmax(logits), split.labels, AG_NEWS_LABELS)


Rule = Callable[[int, list[dict[str, Any]]], dict[str, Any]]
"""Which checkpoint it keeps, of the number of validation rows and all checkpoints."""


def errors(count: float) -> Rule:
    """A rule: the last of those whose accuracy is at most so many standard errors below the best one's."""

    def kept(rows: int, found: list[dict[str, Any]]) -> dict[str, Any]:
        best = max(each["accuracy"] for each in found)
        least = best - count * standard_error(best, rows)
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
        for technique, (name, rule) in itertools.product(TECHNIQUES, RULES.items()):
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
