"""Test accuracy by the number of labelled rows, next to the baseline's, and to SetFit's where rows are few.

    python benchmarks/learning_curve.py ROWS [--rows 32 128 512 2000 15000 all] [--seeds 1 2 3] [--setfit-up-to 128]
        [--results FILE] [--torch-index URL]

ROWS is a file of labelled AG News rows, such as `train.jsonl.gz` with integer labels. Each training is what `newsbert
train` does with a directory of so many rows, every class in its share; those it chooses the best checkpoint by are
drawn from them. All are scored on the same test rows, those that `newsbert train` takes of ROWS. SetFit tunes the same
encoder on all of the same rows, as its paper does; its packages (`peers/setfit.txt`) are installed into an
environment of their own. Equal threads. What is measured is appended to `--results`, and not measured again.
"""

import argparse
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
"""Where they are others than the default."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="ROWS")
    parser.add_argument("--rows", nargs="+", default=["32", "128", "512", "2000", "15000", "all"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--setfit-up-to", type=int, default=128)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--torch-index", default="", help="package index of SetFit's torch, if not pip's own")
    given = parser.parse_args()
    known = load_dataset(str(given.data), labels=AG_NEWS_LABELS)
    asked = [(size, seed) for size in given.rows for seed in given.seeds if size != "all" or seed == given.seeds[0]]
    for size, seed in asked:
        key = {"rows": size, "seed": seed}
        done = {each["model"] for each in recorded.read(given.results) if key.items() <= each.items()}
        rows = known.train if size == "all" else drawn(known.train, int(size), seed)
        with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as directory:
            files = Path(directory, "rows")
            files.mkdir()
            write(files / "train.jsonl", rows)
            write(files / "test.jsonl", known.test)
            if "newsbert" not in done:
                found = ours(files, seed, EPOCHS.get(size))
                recorded.add(given.results, *(key | each for each in found if each["model"] not in done))
            if "SetFit" not in done and len(rows) <= given.setfit_up_to:
                programs = environments.programs(PEERS, given.torch_index)
                recorded.add(given.results, key | setfits(files, seed, programs))
    table(recorded.read(given.results))


def drawn(split: Split, count: int, seed: int) -> Split:
    """So many rows, the same number of every class."""
    shuffled = np.random.default_rng(seed).permutation(len(split))
    labels = np.unique(split.labels)
    of_each = [shuffled[split.labels[shuffled] == label][: count // len(labels)] for label in labels]
    places = np.concatenate(of_each)
    return Split([split.texts[int(place)] for place in places], split.labels[places], "")


def write(file: Path, split: Split) -> None:
    """Write rows as a user has them."""
    with file.open("w", encoding="utf-8") as stream:
        for text, label in zip(split.texts, split.labels.tolist(), strict=True):
            stream.write(json.dumps({"text": text, "label": label}) + "\n")


def ours(files: Path, seed: int, epochs: float | None) -> list[dict[str, Any]]:
    """What `newsbert train` reports of itself and of its baseline."""
    command = [
        str(Path(sys.executable).with_name("newsbert")), "train", "--data", str(files), "--json", "--seed", str(seed),
        "--labels", ",".join(AG_NEWS_LABELS), *(["--epochs", str(epochs)] if epochs else []),
    ]  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run(command, cwd=files.parent, check=True, stdout=subprocess.PIPE, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime  # of the whole command
    told = json.loads(ran.stdout)
    return [
        {"model": "newsbert", "accuracy": told["metrics"]["accuracy"], "seconds": told["training_seconds"],
         "cpu_seconds": cpu_seconds},
        {"model": "baseline", "accuracy": told["baseline"]["accuracy"], "seconds": told["baseline"]["fit_seconds"]},
    ]  # fmt: skip


def setfits(files: Path, seed: int, programs: Path) -> dict[str, Any]:
    """What SetFit makes of the same rows."""
    command = [
        str(programs / "python"), str(HERE / "peers" / "setfit_classify.py"), str(base_model.find("minilm").path),
        str(files / "train.jsonl"), str(files / "test.jsonl"), str(seed),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": str(cpu.cores()), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return {"model": "SetFit", **json.loads(ran.stdout.splitlines()[-1])}


def table(results: list[dict[str, Any]]) -> None:
    """Print accuracy by rows and model: the mean and the range over seeds, and the median time."""
    models = ["newsbert", "SetFit", "baseline"]
    print(f"\n{cpu.cores()} threads\n\n| rows | " + " | ".join(models) + " | seconds |\n|---|---|---|---|---|")
    for size in dict.fromkeys(each["rows"] for each in results):
        cells, seconds = [], []
        for model in models:
            of = [each for each in results if (each["rows"], each["model"]) == (size, model)]
            accuracies = [each["accuracy"] for each in of]
            seconds.append(f"{statistics.median(each['seconds'] for each in of):.0f}" if of else "-")
            spread = f" ({min(accuracies):.4f} to {max(accuracies):.4f})" if len(accuracies) > 1 else ""
            cells.append(f"{statistics.fmean(accuracies):.4f}{spread}" if of else "-")
        print(f"| {size} | " + " | ".join(cells) + f" | {', '.join(seconds)} |")


if __name__ == "__main__":
    main()
