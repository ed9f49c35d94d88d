"""Compare rules that select a checkpoint when validation rows are few, and measure the gain of layer-wise decay.

    python benchmarks/few_labels.py ROWS [--rows 32 128 512] [--seeds 1 2 3 4 5] [--only NAME …] [--results FILE]

ROWS is a file of labelled AG News rows, such as `train.jsonl.gz` with integer labels. The script leaves out the test
rows that `newsbert train` splits off ROWS. It holds out 2,000 of the others. A training gets some of the rest, the same
number of every class; validation rows are split off them. Every rule selects one checkpoint of the same training, and
these are scored on the held-out rows:

- best F1: the first with the best macro F1; of those with the same F1, the one with the lowest loss
- lowest loss: on the validation rows
- within 1 standard error: the last whose accuracy is at most one standard error below the best; `newsbert train` uses
  this rule with macro F1
- last

Techniques are none; layer-wise decay of the learning rate (https://arxiv.org/abs/1801.06146), which `newsbert train`
uses; and pairs of texts, which `newsbert train` uses with very few rows. The last one scores its last step alone.
docs/explanation/benchmarks.md has other techniques, with the revisions that measured them.

The script appends its measurements to `--results`, and does not repeat those that are there. The tables show all.
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
from transformers import PreTrainedModel

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
from newsbert.training.contrastive import ContrastiveTask, ContrastiveTrainer, load_encoder
from newsbert.training.graphs import make_graph
from newsbert.training.optimizer import make_optimizer
from newsbert.training.precision import choose_precision
from newsbert.training.tokenizer import prepare_tokenizer
from newsbert.training.trainer import Trainer, standard_error

RESULTS = Path(__file__).parent / "results" / "few_labels.jsonl"
HELD_OUT = 2_000
TECHNIQUES = {"none": ("full", 1.0), "layer-wise decay, 0.8": ("full", 0.8), "pairs of texts": ("contrastive", 1.0)}
"""Method, and factor of the learning rate from one layer to the layer below."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="ROWS")
    parser.add_argument("--rows", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--only", nargs="+", default=["none"], choices=[*TECHNIQUES])
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(cpu.cores())
    dataset = load_dataset(str(arguments.data), labels=AG_NEWS_LABELS)
    places = np.random.default_rng(0).permutation(len(dataset.train))
    held_out = select_rows(dataset.train, places[:HELD_OUT], "held out")
    others = select_rows(dataset.train, places[HELD_OUT:], "others")
    for size, seed, name in itertools.product(arguments.rows, arguments.seeds, arguments.only):
        key = {"rows": size, "technique": name, "seed": seed}
        if not any(key.items() <= result.items() for result in recorded.read(arguments.results)):
            recorded.add(arguments.results, key | measure(others, held_out, size, seed, name))
    print_rules(recorded.read(arguments.results))
    print_techniques(recorded.read(arguments.results))


def select_rows(split: Split, places: Any, name: str) -> Split:
    """Return some rows of a split."""
    return Split([split.texts[int(place)] for place in places], split.labels[places], f"{split.digest} {name}")


def measure(others: Split, held_out: Split, size: int, seed: int, name: str) -> dict[str, Any]:
    """Train with a technique, and return the scores of its checkpoints on the validation rows and the held-out rows."""
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as directory:
        learning_curve.write(Path(directory, "train.jsonl"), learning_curve.draw(others, size, seed))
        learning_curve.write(Path(directory, "test.jsonl"), held_out)
        rows = load_dataset(directory, labels=AG_NEWS_LABELS)
    model, tokenizer, evaluations = train(rows, *TECHNIQUES[name], seed)
    checkpoints = [asdict(evaluation) for evaluation, _ in evaluations]
    selected = {rule(len(rows.validation), checkpoints)["step"] for rule in RULES.values()}
    for checkpoint, (_, parameters) in zip(checkpoints, evaluations, strict=True):
        if checkpoint["step"] in selected:
            model.load_state_dict(parameters, strict=False)
            scores = score(model, tokenizer, rows.test)
            checkpoint |= {"held_out_accuracy": scores.accuracy, "held_out_loss": scores.loss}
    return {"validation_rows": len(rows.validation), "checkpoints": checkpoints}


def train(
    rows: Dataset, method: str, layer_decay: float, seed: int
) -> tuple[PreTrainedModel, SequenceTokenizer, list[tuple[Evaluation, dict[str, Tensor]]]]:
    """Train once, and return the model, its tokenizer, and every evaluation with its parameters."""
    evaluations: list[tuple[Evaluation, dict[str, Tensor]]] = []

    class RecordingTrainer(Trainer):
        evaluations_per_epoch = ContrastiveTrainer.evaluations_per_epoch if method == "contrastive" else 2

        def make_optimizer(self, parameters: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
            return make_optimizer(parameters, layer_decay)

        def evaluate(self) -> bool:
            is_finite = super().evaluate()
            parameters = {name: value.detach().clone() for name, value in self.parameters.items()}
            evaluations.append((self.state.history.evaluations[-1], parameters))
            return is_finite

    context = TrainingContext(TrainSettings(seed=seed, tune=method), rows, base_model.find("minilm"))
    hooks: dict[str, Any] = {"task": ContrastiveTask, "load": load_encoder} if method == "contrastive" else {}
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as directory:
        work = Path(directory)
        tokenizer = prepare_tokenizer(context.base_model, work, context.settings.max_length)
        trained = fine_tuning.fit(
            context, tokenizer, Checkpoints(work / "checkpoints"), trainer=RecordingTrainer, **hooks
        )
    return trained.model, tokenizer, evaluations


def score(model: PreTrainedModel, tokenizer: SequenceTokenizer, split: Split) -> Scores:
    """Score the rows of a split; in bf16, which is exact enough, where it is faster."""
    ids = tokenizer.encode(list(split.texts))
    logits = np.empty((len(ids), len(AG_NEWS_LABELS)), np.float32)
    is_bf16_faster = choose_precision(model, TrainSettings()) == "bf16"
    graph = make_graph(copy.deepcopy(model).to(torch.bfloat16) if is_bf16_faster else model).eval()
    with torch.inference_mode():
        for places in sub_batches([len(row) for row in ids], 4096):
            input_ids, mask = (torch.from_numpy(array) for array in pad([ids[place] for place in places], 0))
            logits[places] = graph(input_ids, mask).float().numpy()
    return metrics.score(softmax(logits), split.labels, AG_NEWS_LABELS)


Rule = Callable[[int, list[dict[str, Any]]], dict[str, Any]]
"""Function of the number of validation rows and all checkpoints that returns the selected checkpoint."""


def select_within_standard_error(rows: int, checkpoints: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the last checkpoint whose accuracy is at most one standard error below the best."""
    best = max(checkpoint["accuracy"] for checkpoint in checkpoints)
    min_accuracy = best - standard_error(best, rows)
    return [checkpoint for checkpoint in checkpoints if checkpoint["accuracy"] >= min_accuracy][-1]


RULES: dict[str, Rule] = {
    "best F1": lambda _, checkpoints: max(checkpoints, key=lambda scores: (scores["f1_macro"], -scores["loss"])),
    "lowest loss": lambda _, checkpoints: min(checkpoints, key=lambda scores: scores["loss"]),
    "within 1 standard error": select_within_standard_error,
    "last": lambda _, checkpoints: checkpoints[-1],
}


def print_rules(results: list[dict[str, Any]]) -> None:
    """Print the scores of the checkpoints that every rule selects of the same trainings."""
    print("\n| rows | validation rows | technique: rule | held-out accuracy, mean | by seed | loss | selected steps |")
    print("|---|---|---|---|---|---|---|")
    for size in sorted({result["rows"] for result in results}):
        for technique, (name, rule) in itertools.product(TECHNIQUES, RULES.items()):
            trainings = [result for result in results if (result["rows"], result["technique"]) == (size, technique)]
            selected = [rule(training["validation_rows"], training["checkpoints"]) for training in trainings]
            if trainings:
                steps = ", ".join(str(checkpoint["step"]) for checkpoint in selected)
                print_line(size, trainings[0]["validation_rows"], f"{technique}: {name}", selected, steps)


def print_techniques(results: list[dict[str, Any]]) -> None:
    """Print the scores of every technique after the last step, and its gain on the same seeds."""
    print("\n| rows | validation rows | technique | held-out accuracy, mean | by seed | loss | gain, mean |")
    print("|---|---|---|---|---|---|---|")
    last = {(result["rows"], result["technique"], result["seed"]): result["checkpoints"][-1] for result in results}
    for size in sorted({result["rows"] for result in results}):
        for name in TECHNIQUES:
            by_seed = {
                seed: checkpoint
                for (rows, technique, seed), checkpoint in last.items()
                if (rows, technique) == (size, name)
            }
            if by_seed:
                gains = [
                    checkpoint["held_out_accuracy"] - plain["held_out_accuracy"]
                    for seed, checkpoint in by_seed.items()
                    if (plain := last.get((size, "none", seed)))
                ]
                validation = next(result["validation_rows"] for result in results if result["rows"] == size)
                gain = f"{statistics.fmean(gains):+.4f}" if gains else "-"
                print_line(size, validation, name, list(by_seed.values()), gain)


def print_line(size: int, validation: int, name: str, checkpoints: list[dict[str, Any]], end: str) -> None:
    """Print a row of a table."""
    accuracies = [checkpoint["held_out_accuracy"] for checkpoint in checkpoints]
    loss = statistics.fmean(checkpoint["held_out_loss"] for checkpoint in checkpoints)
    by_seed = ", ".join(f"{accuracy:.4f}" for accuracy in accuracies)
    print(f"| {size} | {validation} | {name} | {statistics.fmean(accuracies):.4f} | {by_seed} | {loss:.3f} | {end} |")


if __name__ == "__main__":
    main()
