"""Measure the speed of methods of fine-tuning, on the same rows, encoder and threads.

    python benchmarks/training.py ROWS [--rounds 3] [--examples 1920] [--workers 2]
    python benchmarks/training.py ROWS --head [--max-train-samples 15000] [--epochs 5]

ROWS is a file of labelled AG News rows, such as `train.jsonl.gz` with integer labels. The first command compares
examples per second of optimizer steps, without evaluation and export. The methods take turns in one run:

- transformers' `Trainer` at its defaults: batches of 8 in random order, padded to the longest row, fp32
- the system that newsbert replaces: a frozen encoder that runs in every epoch, texts padded to 160 tokens, batches of
  16
- `newsbert train`, `--tune lora`, and in fp32
- with `--workers`: this number of workers of Ray, which divide the cores of this machine, and one process with the
  threads of one worker
- the limit: the matrix multiplications of the encoder, at the speed of such multiplications alone

The second command measures `newsbert train --tune head`, with tokenization and encoding, the first time and when the
vectors are cached. It compares both with the time that the system newsbert replaces would take.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn

import newsbert
from newsbert.core import cpu
from newsbert.core.events import Event, Phase, Step
from newsbert.core.settings import RaySettings, TrainSettings
from newsbert.data.dataset import Dataset, Split, load_dataset
from newsbert.data.sources import AG_NEWS_LABELS
from newsbert.inference.tokenization import SequenceTokenizer, pad
from newsbert.training import base_model, fine_tuning, ray_trainer
from newsbert.training.checkpoints import Checkpoints
from newsbert.training.context import TrainingContext
from newsbert.training.tokenizer import prepare_tokenizer

SKIPPED = 10
"""First steps of a measurement that do not count: they allocate memory."""

REFERENCE_TOKENS, REFERENCE_BATCH = 160, 16

Method = Callable[[Dataset], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--examples", type=int, default=1920)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--head", action="store_true")
    parser.add_argument("--max-train-samples", type=int, default=15_000)
    parser.add_argument("--epochs", type=float, default=5.0)
    arguments = parser.parse_args()
    rows = arguments.rows.resolve()
    torch.set_num_threads(cpu.cores())
    dataset = load_dataset(str(rows), labels=AG_NEWS_LABELS, samples=arguments.max_train_samples)
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as directory:
        os.chdir(directory)
        os.environ["NEWSBERT_CACHE_DIR"] = directory
        Path("work").mkdir()
        tokenizer = prepare_tokenizer(base_model.find("minilm"), Path("work"), 128)
        if arguments.head:
            compare_head(dataset, rows, tokenizer, arguments)
        else:
            compare_speeds(dataset, rows, tokenizer, arguments)


def compare_speeds(dataset: Dataset, rows: Path, tokenizer: SequenceTokenizer, arguments: Any) -> None:
    """Print examples per second of every method, medians of the rounds."""
    methods: dict[str, Method] = {
        "transformers.Trainer, defaults": lambda dataset: run_transformers(dataset, tokenizer, arguments.examples),
        "frozen encoder, padded to 160 (reference)": lambda dataset: run_reference(
            dataset, tokenizer, arguments.examples
        ),
        "newsbert train": lambda dataset: run_newsbert(dataset, tokenizer, arguments.examples),
        "newsbert train --tune lora": lambda dataset: run_newsbert(dataset, tokenizer, arguments.examples, tune="lora"),
        "newsbert train, fp32": lambda dataset: run_newsbert(dataset, tokenizer, arguments.examples, fp32=True),
    }
    if arguments.workers > 1:
        threads = max(1, cpu.cores() // arguments.workers)
        methods[f"newsbert train --ray-workers {arguments.workers}"] = lambda dataset: run_workers(
            dataset, rows, arguments
        )
        methods[f"newsbert train, threads of a worker ({threads})"] = lambda dataset: run_newsbert(
            dataset, tokenizer, arguments.examples, threads=threads
        )
    mean = statistics.fmean(len(ids) for ids in tokenizer.encode(list(dataset.train.texts[:2000])))
    rates: dict[str, list[float]] = {name: [] for name in methods}
    limits = []
    for _ in range(arguments.rounds):
        for name, method in methods.items():
            rates[name].append(method(dataset))
        limits.append(measure_limit(mean))
    print(
        f"{cpu.cores()} threads, {arguments.examples} examples per measurement, {arguments.rounds} rounds, "
        f"{mean:.0f} tokens per row on average\n"
    )
    print("| method | examples/s, median | range | ratio to `Trainer`, median of the rounds |\n|---|---|---|---|")
    peers = rates["transformers.Trainer, defaults"]
    for name, values in [*rates.items(), ("limit: matrix products in bf16", limits)]:
        ratio = statistics.median(value / peer for value, peer in zip(values, peers, strict=True))
        print(f"| {name} | {statistics.median(values):.0f} | {min(values):.0f} to {max(values):.0f} | {ratio:.1f} |")


def run_newsbert(
    dataset: Dataset,
    tokenizer: SequenceTokenizer,
    examples: int,
    tune: str = "full",
    *,
    fp32: bool = False,
    threads: int | None = None,
) -> float:
    """Return examples per second of newsbert's training loop."""
    batch_size = TrainSettings(tune=tune).choose_batch_size(len(dataset.train))
    clock = Clock(batch_size)
    settings = TrainSettings(max_steps=examples // batch_size + SKIPPED, tune=tune)
    with tempfile.TemporaryDirectory() as work:
        if fp32:  # as a training stores its precision
            Path(work, "precision").write_text("fp32", encoding="utf-8")
        short = Dataset(dataset.name, dataset.label_names, dataset.train, cut_validation(dataset, 64), dataset.test, "")
        torch.set_num_threads(threads or cpu.cores())
        context = TrainingContext(settings, short, base_model.find("minilm"), clock)
        fine_tuning.fit(context, tokenizer, Checkpoints(Path(work)))
        torch.set_num_threads(cpu.cores())
    return clock.rate


def run_workers(dataset: Dataset, rows: Path, arguments: Any) -> float:
    """Return examples per second of workers of Ray."""
    batch_size = TrainSettings().choose_batch_size(len(dataset.train))
    clock = Clock(batch_size)
    settings = TrainSettings(
        data=str(rows), labels=AG_NEWS_LABELS, max_train_samples=arguments.max_train_samples,
        max_steps=arguments.examples // batch_size + SKIPPED,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as work:
        checkpoints, workers = Checkpoints(Path(work)), RaySettings(workers=arguments.workers)
        context = TrainingContext(settings, dataset, base_model.find("minilm"), clock)
        ray_trainer.fit(context, workers, checkpoints)
    return clock.rate


class Clock:
    """Receiver of events that measures the rate of the steps.

    Args:
        rows: Examples per step.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._steps: list[tuple[float, int]] = []

    def __call__(self, event: Event) -> None:
        """Record the time of a step."""
        if isinstance(event, Step):
            self._steps.append((time.perf_counter(), event.step))

    @property
    def rate(self) -> float:
        """Examples per second of the steps that count."""
        (started, first), *_, (ended, last) = self._steps[SKIPPED - 1 :]
        return self._rows * (last - first) / (ended - started)


def run_transformers(dataset: Dataset, tokenizer: SequenceTokenizer, examples: int) -> float:
    """Return examples per second of transformers' `Trainer` at its defaults."""
    rows = [
        {"input_ids": ids, "labels": int(label)}
        for ids, label in zip(
            tokenizer.encode(list(dataset.train.texts[: 4 * examples])), dataset.train.labels, strict=False
        )
    ]
    times: list[float] = []

    class Times(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    model = fine_tuning.load_classifier(base_model.find("minilm"), dataset.label_names)
    model.requires_grad_(True)
    with tempfile.TemporaryDirectory() as work:
        arguments = transformers.TrainingArguments(
            work, max_steps=examples // 8 + SKIPPED, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True,
            logging_strategy="no",
        )  # fmt: skip
        transformers.Trainer(
            model, arguments, collate(tokenizer), train_dataset=rows, callbacks=[Times()]
        ).train()  # fmt: skip
    return 8 * (len(times) - SKIPPED) / (times[-1] - times[SKIPPED - 1])


def collate(tokenizer: SequenceTokenizer) -> Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]:
    """Return a function that pads a batch to its longest row."""

    def join(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        input_ids, mask = (
            torch.from_numpy(array) for array in pad([row["input_ids"] for row in rows], tokenizer.pad_id)
        )
        labels = torch.tensor([row["labels"] for row in rows])
        return {"input_ids": input_ids, "attention_mask": mask, "labels": labels}

    return join


def run_reference(dataset: Dataset, tokenizer: SequenceTokenizer, examples: int) -> float:
    """Return examples per second of a head on a frozen encoder that encodes padded texts in every epoch."""
    encoder = (
        transformers.AutoModel.from_pretrained(str(base_model.find("minilm").path), trust_remote_code=False)
        .eval()
        .requires_grad_(False)
    )
    head = nn.Sequential(nn.Linear(384, 512), nn.ReLU(), nn.Dropout(0.2), nn.Linear(512, len(dataset.label_names)))
    optimizer = torch.optim.Adam(head.parameters(), 1e-3)
    times = []
    for input_ids, mask, labels in batches(dataset, tokenizer, examples + SKIPPED * REFERENCE_BATCH):
        first = encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state[:, 0]
        nn.functional.cross_entropy(head(first), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter())
    return REFERENCE_BATCH * (len(times) - SKIPPED) / (times[-1] - times[SKIPPED - 1])


def batches(dataset: Dataset, tokenizer: SequenceTokenizer, examples: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield the batches of the reference: ids, mask and labels."""
    ids = tokenizer.encode(list(dataset.train.texts[:examples]))
    for start in range(0, examples - REFERENCE_BATCH + 1, REFERENCE_BATCH):
        rows = ids[start : start + REFERENCE_BATCH]
        longest, mask = pad([*rows, [0] * REFERENCE_TOKENS], tokenizer.pad_id)
        labels = torch.from_numpy(dataset.train.labels[start : start + REFERENCE_BATCH].astype(np.int64))
        yield torch.from_numpy(longest[:-1]), torch.from_numpy(mask[:-1]), labels


def measure_limit(tokens: float) -> float:
    """Return examples per second if a step were only the matrix products of the encoder, forward and backward.

    Args:
        tokens: Tokens per example.
    """
    rows, rates = 512, []
    for inner, outer in ((384, 384), (384, 1536), (1536, 384)):
        left, right = (torch.randn(shape, dtype=torch.bfloat16) for shape in ((rows, inner), (inner, outer)))
        seconds = []
        for _ in range(30):
            started = time.perf_counter()
            left @ right
            seconds.append(time.perf_counter() - started)
        rates.append(2 * rows * inner * outer / statistics.median(seconds))
    # Five layers compute all tokens. The sixth computes only keys and values of all tokens.
    weights = 5 * (4 * 384 * 384 + 2 * 384 * 1536) + 2 * 384 * 384
    return statistics.harmonic_mean(rates) / (3 * 2 * weights * tokens)


def compare_head(dataset: Dataset, rows: Path, tokenizer: SequenceTokenizer, arguments: Any) -> None:
    """Print the seconds of `--tune head`, next to those of the reference."""
    texts = len(dataset.train) * arguments.epochs
    speeds = [run_reference(dataset, tokenizer, arguments.examples) for _ in range(arguments.rounds)]
    expected = texts / statistics.median(speeds)
    print(f"{cpu.cores()} threads, {len(dataset.train)} rows, {arguments.epochs:g} epochs\n")
    print("| method | training s | fraction of the reference | test accuracy |\n|---|---|---|---|")
    print(f"| reference, from its {statistics.median(speeds):.0f} rows/s | {expected:.0f} | 1 | |")
    for name in ("newsbert train --tune head", "the same again, vectors cached"):
        started: dict[str, float] = {}

        def on_event(event: Event, started: dict[str, float] = started) -> None:
            if isinstance(event, Phase):
                started[event.name] = time.perf_counter()

        result = newsbert.train(
            data=str(rows), labels=AG_NEWS_LABELS, max_train_samples=arguments.max_train_samples,
            epochs=arguments.epochs, tune="head", on_event=on_event,
        )  # fmt: skip
        seconds = started["exporting"] - started["tokenizing"]
        print(f"| {name} | {seconds:.0f} | 1/{expected / seconds:.0f} | {result.scores.accuracy:.4f} |", flush=True)


def cut_validation(dataset: Dataset, rows: int) -> Split:
    """Return the first validation rows."""
    split = dataset.validation
    return Split(split.texts[:rows], split.labels[:rows], f"{split.digest} {rows}")


if __name__ == "__main__":
    main()
