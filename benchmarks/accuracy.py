"""What techniques for small encoders gain on AG News rows that no training has seen, over several seeds.

    python benchmarks/accuracy.py ROWS [--samples 15000] [--epochs 2] [--seeds 1 2 3] [--only NAME …] [--results FILE]

ROWS is a file of labelled AG News rows, such as `train.jsonl.gz` with integer labels. The test rows that `newsbert
train` would take of them are put aside, so that a choice made here leaves them unseen. Of the others each training
sees `--samples`, drawn by its seed; its held-out rows are 8,000 that are the same for all. Every technique is one thing
added to a plain training, in which all layers learn at the same rate:

- none
- mean: a seventh layer, in which the first token begins as the mean of all, which is how this encoder was made to be
  read (https://arxiv.org/abs/1908.10084); a fifth more products in training and serving, since the sixth is then
  computed for all tokens
- averaged: scored and kept is the exponential average of the weights, 0.995 (https://arxiv.org/abs/1803.05407)
- smoothing: labels are smoothed by 0.1 (https://arxiv.org/abs/1512.00567)
- r-drop: two draws of dropout, and their divergence in the loss (https://arxiv.org/abs/2106.14448); twice the work
- distilled: half of the loss is of the probabilities that a first training gave these rows, instead of their labels
  (https://arxiv.org/abs/1805.04770); twice the work
- masked: before that the encoder learns for an epoch to guess 15% of the words of all rows that are not held out,
  their labels unused (https://arxiv.org/abs/2004.10964); once for all seeds, in the seconds of the first
- layer-wise decay, 0.8, masked 2: both, with two epochs of guessing
- word vectors: the table of word vectors is tuned too
- layer-wise decay, N: each layer learns at N of the rate of the one above it (https://arxiv.org/abs/1801.06146); with
  0.8 this is what `newsbert train` does; with other steps, too
- N rows, RATE: so many rows in a step, at that peak learning rate, instead of 32 and 1.5e-4

For each, `last step` is what the last step left, instead of the best by the validation rows.

What is measured is appended to `--results`, and not measured again; the table is of all of it.
"""

import argparse
import contextlib
import copy
import dataclasses
import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import transformers
from torch import Tensor, nn

import recorded
from newsbert.core import cpu
from newsbert.core.settings import TrainSettings
from newsbert.data.dataset import Dataset, Split, load_dataset
from newsbert.data.sources import AG_NEWS_LABELS
from newsbert.evaluation import calibration, metrics
from newsbert.inference.runtime import sub_batches
from newsbert.inference.tokenization import SequenceTokenizer, pad
from newsbert.training import base_model, fine_tuning, loop, sampler
from newsbert.training.checkpoints import Checkpoints
from newsbert.training.optimizer import learning_rate
from newsbert.training.tokenizer import prepare_tokenizer

RESULTS = Path(__file__).parent / "results" / "accuracy.jsonl"
HELD_OUT = 8_000
SMOOTHING, AVERAGE, DIVERGENCE, MEAN = 0.1, 0.995, 1.0, 4.0
MASKED_SHARE, MASKED_ROWS, MASKED_RATE = 0.15, 32, 1e-4

unlabelled: list[str] = []
"""Of all rows that are not held out."""


@contextlib.contextmanager
def none() -> Iterator[None]:
    yield


@contextlib.contextmanager
def mean() -> Iterator[None]:
    plain = fine_tuning.classifier

    def classifier(*arguments: Any) -> Any:
        model = plain(*arguments)
        add_mean(model)
        return model

    with mock.patch.object(fine_tuning, "classifier", classifier):
        yield


@torch.no_grad()
def add_mean(model: Any) -> None:
    """Add a layer to a `BertForSequenceClassification`, in which the first token becomes the mean of all."""
    layer, pooler = copy.deepcopy(model.bert.encoder.layer[-1]), model.bert.pooler.dense
    own, output = layer.attention.self, layer.attention.output
    for linear in (own.query, own.key, own.value, output.dense, layer.output.dense, pooler):
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    # Turned, and turned back: an identity's large diagonal would leave 8 bits nothing for what is learned beside it.
    nn.init.orthogonal_(own.value.weight, gain=MEAN**0.5)
    output.dense.weight.copy_(own.value.weight.T)
    nn.init.orthogonal_(pooler.weight, gain=0.3)  # small, for tanh
    nn.init.normal_(layer.intermediate.dense.weight, std=model.config.initializer_range)
    nn.init.zeros_(layer.intermediate.dense.bias)
    for norm in (output.LayerNorm, layer.output.LayerNorm):
        nn.init.ones_(norm.weight)
        nn.init.zeros_(norm.bias)
    model.bert.encoder.layer.append(layer)
    model.config.num_hidden_layers += 1


@contextlib.contextmanager
def averaged() -> Iterator[None]:
    class Averaging(loop._Loop):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.mean: list[Tensor] = []

        def _step(self, stop: Callable[[], bool]) -> tuple[bool, bool]:
            done = super()._step(stop)
            share = min(AVERAGE, self._progress.step / (self._progress.step + 10))  # of the average so far
            self.mean = self.mean or self._values()
            torch._foreach_lerp_(self.mean, self._values(), 1 - share)
            return done

        def _evaluate(self) -> bool:
            own = self._values()
            self._set(self.mean)
            found = super()._evaluate()
            self._set(own)
            return found

        def _values(self) -> list[Tensor]:
            return [each.detach().clone() for each in self._parameters.values()]

        def _set(self, values: list[Tensor]) -> None:
            with torch.no_grad():
                torch._foreach_copy_(list(self._parameters.values()), values)

    with mock.patch.object(loop, "_Loop", Averaging):
        yield


@contextlib.contextmanager
def smoothing() -> Iterator[None]:
    def loss(_: Any, logits: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=SMOOTHING)

    with mock.patch.object(fine_tuning._FineTuning, "_loss", loss):
        yield


@contextlib.contextmanager
def r_drop() -> Iterator[None]:
    plain = fine_tuning._FineTuning._logits

    def logits(self: Any, split: Any, rows: Sequence[int]) -> Tensor:
        if not self._graph.training:
            return plain(self, split, rows)
        return torch.cat([plain(self, split, rows), plain(self, split, rows)])

    def loss(_: Any, both: Tensor, labels: Tensor) -> Tensor:
        one, other = (each.log_softmax(1) for each in both.chunk(2))
        divergence = nn.functional.kl_div(one, other, reduction="sum", log_target=True) + nn.functional.kl_div(
            other, one, reduction="sum", log_target=True
        )
        fit = nn.functional.nll_loss(one, labels, reduction="sum") + nn.functional.nll_loss(
            other, labels, reduction="sum"
        )
        return fit / 2 + DIVERGENCE * divergence / 2

    with (
        mock.patch.object(fine_tuning._FineTuning, "_logits", logits),
        mock.patch.object(fine_tuning._FineTuning, "_loss", loss),
    ):
        yield


@contextlib.contextmanager
def distilled() -> Iterator[None]:
    plain, of_rows = fine_tuning.fit, fine_tuning._FineTuning._logits

    def fit(base: Any, rows: Dataset, tokenizer: SequenceTokenizer, settings: TrainSettings, *others: Any) -> Any:
        with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as directory:
            teacher = plain(base, rows, tokenizer, settings, Checkpoints(Path(directory)), *others[1:])
            told = torch.from_numpy(predicted(teacher.model, tokenizer, rows.train))
        latest: list[int] = []

        def logits(self: Any, split: Any, places: Sequence[int]) -> Tensor:
            latest[:] = places
            return of_rows(self, split, places)

        def loss(_: Any, logits: Tensor, labels: Tensor) -> Tensor:
            fit = nn.functional.cross_entropy(logits, labels, reduction="sum")
            return (fit + nn.functional.cross_entropy(logits, told[latest], reduction="sum")) / 2

        with (
            mock.patch.object(fine_tuning._FineTuning, "_logits", logits),
            mock.patch.object(fine_tuning._FineTuning, "_loss", loss),
        ):
            return plain(base, rows, tokenizer, settings, *others)

    with mock.patch.object(fine_tuning, "fit", fit):
        yield


@contextlib.contextmanager
def masked(epochs: int = 1) -> Iterator[None]:
    plain = fine_tuning.fit

    def fit(base: Any, *others: Any) -> Any:
        return plain(dataclasses.replace(base, path=Path(guessing_words(epochs).name)), *others)

    with mock.patch.object(fine_tuning, "fit", fit):
        yield


@contextlib.contextmanager
def masked_with_decay() -> Iterator[None]:
    with masked(2), decay(0.8)():
        yield


@functools.cache
def guessing_words(epochs: int) -> "tempfile.TemporaryDirectory[str]":
    """The encoder after it has learned to guess words of `unlabelled`."""
    base, directory = base_model.find("minilm"), tempfile.TemporaryDirectory(prefix="newsbert-benchmark-")
    tokenizer = prepare_tokenizer(base, Path(directory.name), 128)
    model = transformers.AutoModelForMaskedLM.from_pretrained(str(base.path), trust_remote_code=False).train()
    model.get_input_embeddings().requires_grad_(False)  # and with it what words are guessed from
    ids, (low, high) = tokenizer.encode(unlabelled), (1000, model.config.vocab_size)
    order, rng = (
        sampler.LengthGroupedSampler(np.array([len(each) for each in ids], np.int32), MASKED_ROWS, 1),
        np.random.default_rng(1),
    )
    counts = torch.from_numpy(np.bincount(np.concatenate(ids), minlength=high))
    with torch.no_grad():  # what guesses is new, and need not learn how often words are
        model.cls.predictions.bias.copy_((counts + 1).log() - (counts + 1).sum().log())
    optimizer = torch.optim.AdamW(
        [
            {"params": [each for each in model.bert.parameters() if each.requires_grad], "share": 1.0},
            {"params": [each for each in model.cls.parameters() if each.requires_grad], "share": 10.0},
        ],
        fused=True,
    )
    steps = epochs * order.steps
    for step in range(1, steps + 1):
        input_ids, attention_mask = pad([ids[row] for row in order.rows(step)], tokenizer.pad_id)
        places = (rng.random(input_ids.shape) < MASKED_SHARE) & (input_ids >= low)  # no special tokens
        if not places.any():
            continue
        hidden_ids, kind = input_ids.copy(), rng.random(input_ids.shape)
        hidden_ids[places & (kind < 0.8)] = tokenizer.backend.token_to_id("[MASK]") or 0
        random_words = places & (kind > 0.9)
        hidden_ids[random_words] = rng.integers(low, high, int(random_words.sum()))
        with torch.autocast("cpu", torch.bfloat16):
            found = model.bert(torch.from_numpy(hidden_ids), torch.from_numpy(attention_mask)).last_hidden_state
            logits = model.cls(found[torch.from_numpy(places)])
        loss = nn.functional.cross_entropy(logits.float(), torch.from_numpy(input_ids[places]))
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), loop.MOST_GRADIENT)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, MASKED_RATE) * group["share"]
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 0:
            print(f"guessing words: step {step} of {steps}, loss {float(loss.detach()):.3f}", flush=True)
    whole = transformers.AutoModel.from_pretrained(str(base.path), trust_remote_code=False)
    whole.load_state_dict(model.bert.state_dict(), strict=False)  # all but the pooler
    whole.save_pretrained(directory.name)
    return directory


@contextlib.contextmanager
def word_vectors() -> Iterator[None]:
    plain = fine_tuning.classifier

    def classifier(*arguments: Any) -> Any:
        return plain(*arguments).requires_grad_(True)

    with mock.patch.object(fine_tuning, "classifier", classifier):
        yield


def decay(share: float) -> Callable[[], Any]:
    return lambda: mock.patch.object(loop, "LAYER_DECAY", share)


TECHNIQUES: dict[str, Callable[[], Any]] = {
    "none": none,
    "mean": mean,
    "averaged": averaged,
    "smoothing": smoothing,
    "r-drop": r_drop,
    "distilled": distilled,
    "masked": masked,
    "word vectors": word_vectors,
    "layer-wise decay, 0.9": decay(0.9),
    "layer-wise decay, 0.8": decay(0.8),
    "layer-wise decay, 0.8, masked 2": masked_with_decay,
    "layer-wise decay, 0.8, 0.0003": decay(0.8),
    "layer-wise decay, 0.8, 16 rows, 0.0001": decay(0.8),
}
STEPS: dict[str, dict[str, Any]] = {
    f"{rows} rows, {rate:g}": {"batch_size": rows, "learning_rate": rate}
    for rows, rate in ((32, 7.5e-5), (16, 1e-4), (8, 5e-5))
} | {
    "layer-wise decay, 0.8, 0.0003": {"learning_rate": 3e-4},
    "layer-wise decay, 0.8, 16 rows, 0.0001": {"batch_size": 16, "learning_rate": 1e-4},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--samples", type=int, default=15_000)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--only", nargs="+", default=[*(TECHNIQUES | STEPS)], choices=[*(TECHNIQUES | STEPS)])
    given = parser.parse_args()
    torch.set_num_threads(cpu.cores())
    everything = load_dataset(str(given.rows), labels=AG_NEWS_LABELS)
    places = np.random.default_rng(0).permutation(len(everything.train))
    held_out = rows_of(everything.train, places[:HELD_OUT], "held out")
    unlabelled[:] = rows_of(everything.train, places[HELD_OUT:], "").texts
    for seed in given.seeds:
        drawn = np.random.default_rng(seed).permutation(places[HELD_OUT:])[: given.samples]
        rows = Dataset(
            "AG News", everything.label_names, rows_of(everything.train, drawn, f"{seed} {given.samples}"),
            everything.validation, held_out, "",
        )  # fmt: skip
        for name in given.only:
            key = {"technique": name, "samples": given.samples, "epochs": given.epochs, "seed": seed}
            if not any(key.items() <= found.items() for found in recorded.read(given.results)):
                settings = TrainSettings(epochs=given.epochs, seed=seed, **STEPS.get(name, {}))
                with decay(1.0)(), TECHNIQUES.get(name, none)(), last_kept() as last:
                    best, left = one(rows, settings, last)
                recorded.add(given.results, key | best, key | {"technique": f"{name}, last step"} | left)
    table(recorded.read(given.results), given.samples, given.epochs)


def rows_of(split: Split, places: Any, name: str) -> Split:
    """Some rows of a split."""
    return Split([split.texts[int(each)] for each in places], split.labels[places], f"{split.digest} {name}")


@contextlib.contextmanager
def last_kept() -> Iterator[dict[str, Tensor]]:
    """What the parameters are at the latest evaluation."""
    kept: dict[str, Tensor] = {}
    plain = loop._Loop._evaluate

    def evaluate(self: Any) -> bool:
        kept.update({name: each.detach().clone() for name, each in self._parameters.items()})
        return plain(self)

    with mock.patch.object(loop._Loop, "_evaluate", evaluate):
        yield kept


def one(rows: Dataset, settings: TrainSettings, last: dict[str, Tensor]) -> tuple[dict[str, float], dict[str, float]]:
    """Train once; accuracy and loss on the held-out rows of the best step and of the last, and how long it took."""
    base = base_model.find("minilm")
    with tempfile.TemporaryDirectory(prefix="newsbert-benchmark-") as directory:
        work = Path(directory)
        tokenizer = prepare_tokenizer(base, work, settings.max_length)
        started = time.perf_counter()
        trained = fine_tuning.fit(
            base, rows, tokenizer, settings, Checkpoints(work / "checkpoints"), lambda _: None, lambda: False
        )
        seconds = time.perf_counter() - started
    found = []
    for parameters in ({}, last):
        trained.model.load_state_dict(parameters, strict=False)
        scores = metrics.score(predicted(trained.model, tokenizer, rows.test), rows.test.labels, rows.label_names)
        found.append({"accuracy": scores.accuracy, "loss": scores.loss, "seconds": seconds})
    return found[0], found[1]


def predicted(model: Any, tokenizer: SequenceTokenizer, split: Split) -> Any:
    """Probabilities of a split's rows."""
    ids = tokenizer.encode(list(split.texts))
    found = np.empty((len(ids), int(model.config.num_labels)), np.float32)
    graph = fine_tuning._graph(model).eval()
    with torch.inference_mode():
        for part in sub_batches([len(each) for each in ids], 4096):
            input_ids, mask = (torch.from_numpy(each) for each in pad([ids[row] for row in part], 0))
            found[part] = graph(input_ids, mask).float().numpy()
    return calibration.softmax(found)


def table(results: list[dict[str, Any]], samples: int, epochs: float) -> None:
    """Print accuracy by technique, and what it gains on the same seeds."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for each in results:
        if (each["samples"], each["epochs"]) == (samples, epochs):
            found.setdefault(each["technique"], {})[each["seed"]] = each
    print(f"\n{samples} training rows, {epochs:g} epochs, {HELD_OUT} held-out rows\n")
    print("| technique | accuracy, mean | by seed | gain, mean | loss | time to none's |\n|---|---|---|---|---|---|")
    plain = found.get("none", {})
    for name, by_seed in found.items():
        accuracies = [by_seed[seed]["accuracy"] for seed in sorted(by_seed)]
        both = sorted(by_seed.keys() & plain.keys())
        gain = statistics.fmean(by_seed[seed]["accuracy"] - plain[seed]["accuracy"] for seed in both) if both else 0
        slower = statistics.median(by_seed[seed]["seconds"] / plain[seed]["seconds"] for seed in both) if both else 0
        seeds = ", ".join(f"{each:.4f}" for each in accuracies)
        loss = statistics.fmean(each["loss"] for each in by_seed.values())
        print(f"| {name} | {statistics.fmean(accuracies):.4f} | {seeds} | {gain:+.4f} | {loss:.4f} | {slower:.1f} |")


if __name__ == "__main__":
    main()
