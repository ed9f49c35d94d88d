"""Measure test accuracy by the number of labelled rows, next to the baseline, and to SetFit for few rows.

    python benchmarks/learning_curve.py ROWS [--rows 32 128 512 2000 15000 all] [--seeds 1 2 3] [--setfit-up-to 128]
        [--results FILE] [--torch-index URL]

ROWS is a file of labelled AG News rows, such as `train.jsonl.gz` with integer labels. A training is `newsbert train`
with a directory of rows, the same number of every class; validation rows are split off them. All models are scored on
the test rows that `newsbert train` splits off ROWS. SetFit trains the same encoder on the same rows, as in its paper.
Its packages (`peers/setfit.txt`) are installed into a separate environment. The number of threads is the same. The
script appends its measurements to `--results`, and does not repeat those that are there.
"""

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import environments
import recorded
from newsbert.core import cpu
from newsbert.data.dataset import Split, load_dataset
from newsbert.data.sources import AG_NEWS_LABELS
from newsbert.training import base_model

HERE = Path(__file__).parent
PEERS = HERE / "peers" / "setfit.txt"
RESULTS = HERE / "results" / "learning_curve.jsonl"
EPOCHS = {"all": 3.0, "15000": 2.0}
"""Epochs by number of rows, if they are not the default."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="ROWS")
    parser.add_argument("--rows", nargs="+", default=["32", "128", "512", "2000", "15000", "all"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--setfit-up-to", type=int, default=128)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--torch-index", default="", help="package index of SetFit's torch, if not the default of pip")
    arguments = parser.parse_args()
    dataset = load_dataset(str(arguments.data), labels=AG_NEWS_LABELS)
    for size, seed in itertools.product(arguments.rows, arguments.seeds):
        if size == "all" and seed != arguments.seeds[0]:
            continue
        key = {"rows": size, "seed": seed}
        done = {result["model"] for result in recorded.read(arguments.results) if key.items() <= result.items()}
        rows = dataset.train if size == "all" else draw(dataset.train, int(size), seed)
        with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as directory:
            files = Path(directory, "rows")
            files.mkdir()
            write(files / "train.jsonl", rows)
            write(files / "test.jsonl", dataset.test)
            if "newsbert" not in done:
                results = run_newsbert(files, seed, EPOCHS.get(size))
                recorded.add(arguments.results, *(key | result for result in results if result["model"] not in done))
            if "SetFit" not in done and len(rows) <= arguments.setfit_up_to:
                programs = environments.install(PEERS, arguments.torch_index)
                recorded.add(arguments.results, key | run_setfit(files, seed, programs))
    print_table(recorded.read(arguments.results))


def draw(split: Split, count: int, seed: int) -> Split:
    """Return random rows, the same number of every class."""
    shuffled = np.random.default_rng(seed).permutation(len(split))
    labels = np.unique(split.labels)
    by_label = [shuffled[split.labels[shuffled] == label][: count // len(labels)] for label in labels]
    places = np.concatenate(by_label)
    return Split([split.texts[int(place)] for place in places], split.labels[places], "")


def write(file: Path, split: Split) -> None:
    """Write rows as JSON Lines."""
    with file.open("w", encoding="utf-8") as stream:
        for text, label in zip(split.texts, split.labels.tolist(), strict=True):
            stream.write(json.dumps({"text": text, "label": label}) + "\n")


def run_newsbert(files: Path, seed: int, epochs: float | None) -> list[dict[str, Any]]:
    """Train with `newsbert train`, and return the results of the model and of its baseline."""
    command = [
        str(Path(sys.executable).with_name("newsbert")), "train", "--data", str(files), "--json", "--seed", str(seed),
        "--labels", ",".join(AG_NEWS_LABELS), *(["--epochs", str(epochs)] if epochs else []),
    ]  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    completed = subprocess.run(command, cwd=files.parent, check=True, stdout=subprocess.PIPE, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime  # of the whole command
    result = json.loads(completed.stdout)
    return [
        {"model": "newsbert", "accuracy": result["metrics"]["accuracy"], "seconds": result["training_seconds"],
         "cpu_seconds": cpu_seconds},
        {"model": "baseline", "accuracy": result["baseline"]["accuracy"], "seconds": result["baseline"]["fit_seconds"]},
    ]  # fmt: skip


def run_setfit(files: Path, seed: int, programs: Path) -> dict[str, Any]:
    """Train SetFit on the same rows, and return its results."""
    command = [
        str(programs / "python"), str(HERE / "peers" / "setfit_classify.py"), str(base_model.find("minilm").path),
        str(files / "train.jsonl"), str(files / "test.jsonl"), str(seed),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": str(cpu.cores()), "HF_HUB_OFFLINE": "1"}
    completed = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return {"model": "SetFit", **json.loads(completed.stdout.splitlines()[-1])}


def print_table(results: list[dict[str, Any]]) -> None:
    """Print accuracy by rows and model: the mean and the range over seeds, and the median time."""
    models = ["newsbert", "SetFit", "baseline"]
    print(f"\n{cpu.cores()} threads\n\n| rows | " + " | ".join(models) + " | seconds |\n|---|---|---|---|---|")
    for size in dict.fromkeys(result["rows"] for result in results):
        cells, seconds = [], []
        for model in models:
            trainings = [result for result in results if (result["rows"], result["model"]) == (size, model)]
            accuracies = [training["accuracy"] for training in trainings]
            median = statistics.median(training["seconds"] for training in trainings) if trainings else None
            seconds.append("-" if median is None else f"{median:.0f}")
            spread = f" ({min(accuracies):.4f} to {max(accuracies):.4f})" if len(accuracies) > 1 else ""
            cells.append(f"{statistics.fmean(accuracies):.4f}{spread}" if trainings else "-")
        print(f"| {size} | " + " | ".join(cells) + f" | {', '.join(seconds)} |")


if __name__ == "__main__":
    main()
