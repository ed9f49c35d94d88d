"""Fine-tuning: a base model's tokenizer and classifier, and what a step of the loop does to them.

Texts are tokenized by the same class that serves them (`runtimes.tokenization`).
"""

import copy
import hashlib
import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from newsbert.core import cache, cpu
from newsbert.core.events import Event, History
from newsbert.core.settings import TrainSettings
from newsbert.core.types import FloatArray, IntArray
from newsbert.data.dataset import Dataset
from newsbert.errors import ModelError, first_line
from newsbert.evaluation import calibration, metrics
from newsbert.evaluation.metrics import Scores
from newsbert.inference.runtime import sub_batches
from newsbert.inference.tokenization import SequenceTokenizer, pad
from newsbert.training import distributed, loop, lora, token_cache
from newsbert.training.base_model import BaseModel
from newsbert.training.bert import BertTraining
from newsbert.training.checkpoints import Checkpoints
from newsbert.training.export import bert
from newsbert.training.token_cache import TokenRows

# What its progress bars and load reports say, our events say, or it is expected: the classifier's head is new.
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

STEP_TOKENS = {"cpu": 4096, "cuda": 65_536}
"""Tokens of a step that are computed at once, padding included; the rest comes after them, which bounds the memory."""

_TRIES = 7
"""So often a step is timed with bf16 and with fp32, in turns."""


@dataclass(frozen=True)
class Trained:
    """The model of the checkpoint that was kept.

    Attributes:
        model: In evaluation mode, fp32, on the CPU.
        best_step: The step of that checkpoint.
        stopped_early: Whether it was asked to stop.
        diverged_at: The step whose loss was no finite number, which ended it.
        seconds: Training time, evaluations included.
        precision: `bf16` or `fp32`.
        history: For the learning curves.
    """

    model: PreTrainedModel
    best_step: int
    stopped_early: bool
    diverged_at: int | None
    seconds: float
    precision: str
    history: History

    @classmethod
    def of(cls, model: PreTrainedModel, outcome: loop.Outcome, precision: str) -> "Trained":
        """What a loop made of a model."""
        progress = outcome.progress
        return cls(
            model.eval(),
            progress.best_step,
            outcome.stopped,
            outcome.diverged_at,
            progress.seconds,
            precision,
            progress.history,
        )


def check(base: BaseModel, tokenizer: SequenceTokenizer) -> None:
    """Refuse an encoder that cannot be loaded as a whole, or does not read what its tokenizer writes.

    Raises:
        ModelError: If it is none that can be tuned.
    """
    model = classifier(base, ("0", "1")).eval()
    tokens, rows = max(tokenizer.backend.get_vocab().values()) + 1, model.get_input_embeddings().num_embeddings
    if tokens > rows:
        raise ModelError(
            f"the tokenizer of {base.name!r} has {tokens} tokens, and its encoder {rows}",
            "take both from the same model",
        )
    ids = tokenizer.encode(["Stocks fall as oil rises again", "Goal"])
    inputs = [pad(ids, tokenizer.pad_id), pad(ids[1:], tokenizer.pad_id)]
    try:
        with torch.inference_mode():
            padded, alone = (_Graph(model)(*map(torch.from_numpy, arrays))[-1] for arrays in inputs)
    except Exception as error:  # what architectures raise that are no encoders
        raise ModelError(
            f"{base.name!r} ({model.config.model_type}) does not classify texts: {first_line(error)}",
            "give an encoder, such as one of BERT's family; `--base-model minilm` is the bundled one",
        ) from error
    if not torch.allclose(padded, alone, rtol=1e-2, atol=1e-2):
        raise ModelError(
            f"{base.name!r} ({model.config.model_type}) answers otherwise beside longer texts",
            "give an encoder, such as one of BERT's family; `--base-model minilm` is the bundled one",
        )


def fit(
    base: BaseModel,
    dataset: Dataset,
    tokenizer: SequenceTokenizer,
    settings: TrainSettings,
    checkpoints: Checkpoints,
    on_event: Callable[[Event], None],
    stop: Callable[[], bool],
) -> Trained:
    """Fine-tune `base` on the training rows and return the checkpoint that the loop keeps.

    Args:
        base: The encoder.
        dataset: Rows with their label names.
        tokenizer: From `prepare_tokenizer`.
        settings: Epochs, batch size, learning rate and seed.
        checkpoints: Where they are kept; if there is one already, the training goes on from it.
        on_event: Called after steps and evaluations.
        stop: Asked after every step; when it answers true, the loop evaluates, keeps what is to be kept and returns.

    Raises:
        ModelError: If the base model cannot be loaded as a classifier.
        DivergedError: If the loss is no finite number before there is anything to keep.
    """
    transformers.set_seed(settings.seed)
    model = classifier(base, dataset.label_names)
    precision = distributed.told(lambda: checkpoints.remember("precision", lambda: precision_of(model, settings)))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    adapted = lora.adapt(model, settings.lora_rank) if settings.tune == "lora" else model
    task = _FineTuning(adapted.to(device), precision == "bf16", dataset, tokenizer, settings.seed)
    outcome = loop.run(task, settings, checkpoints, on_event, stop)
    tuned = lora.merge(adapted) if settings.tune == "lora" else model
    return Trained.of(tuned.to("cpu"), outcome, precision)


def classifier(base: BaseModel, label_names: tuple[str, ...]) -> PreTrainedModel:
    """Load the encoder with a new classifier's head, the table of word vectors frozen.

    Raises:
        ModelError: If it cannot be loaded, or lacks weights of the encoder.
    """
    names = dict(enumerate(label_names))
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            str(base.path),
            num_labels=len(names),
            id2label=names,
            label2id={name: index for index, name in names.items()},
            problem_type="single_label_classification",  # whatever the base model's own head was for
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, AttributeError, TypeError, KeyError) as error:
        raise ModelError(
            f"the base model {base.name!r} cannot be loaded: {first_line(error)}",
            "give a BERT-family directory or Hub name",
        ) from error
    prefix = f"{model.base_model_prefix}."
    shapes = {str(entry[0]) for entry in info["mismatched_keys"]}
    new = sorted(key for key in {*info["missing_keys"], *shapes} if key.startswith(prefix) and ".pooler." not in key)
    if new:
        what = "has another shape than config.json says" if new[0] in shapes else "is missing"
        raise ModelError(
            f"the weights of {base.name!r} are not those of its encoder: {new[0]} {what}, {len(new)} in all",
            "fetch the model again",
        )
    # The table of word vectors is half of a small encoder's parameters and most of its optimizer's work, and few of
    # its rows see a gradient on a data set of this size.
    model.get_input_embeddings().requires_grad_(False)
    return model


def precision_of(model: PreTrainedModel, settings: TrainSettings) -> str:
    """Choose what to compute with unless the settings say it: bf16 where the processor has it and it is faster here.

    Having the instructions says little: on one machine bf16 made a step twice as fast, on another half as fast. So a
    small step is timed both ways, once for a machine, which then gives the same metrics again.

    Raises:
        NewsbertError: If the cache directory cannot be written to.
    """
    if settings.precision != "auto":
        return settings.precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    if not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return "fp32"

    def write(part: Path) -> None:
        part.mkdir()
        seconds = _step_seconds(model)
        faster = seconds["bf16"] < 0.9 * seconds["fp32"]
        (part / "precision").write_text("bf16" if faster else "fp32", encoding="utf-8")

    where = f"{platform.node()} {cpu.cores()} {torch.__version__} {model.config.to_json_string()}"
    found = cache.directory("precision", hashlib.sha256(where.encode()).hexdigest(), write)
    return (found / "precision").read_text(encoding="utf-8")


def _step_seconds(model: PreTrainedModel) -> dict[str, float]:
    """Least time of forward and backward of a batch of 8 by 64 tokens: what else goes on here only makes it longer."""
    input_ids = torch.ones((8, 64), dtype=torch.int64)
    graphs = {
        name: _graph(copy.deepcopy(model).to(dtype))
        for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32))
    }
    seconds = dict.fromkeys(graphs, math.inf)
    for _ in range(_TRIES):
        for name, graph in graphs.items():
            started = time.perf_counter()
            graph(input_ids, torch.ones_like(input_ids)).float().sum().backward()
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    return seconds


class _FineTuning:
    """Tunes a classifier of token ids; computes with a copy of it in bf16 where that is faster.

    Args:
        model: What is tuned, in fp32 and on its device: a classifier, perhaps with adapters.
        bf16: Whether to compute in bf16.
        dataset: Rows with their label names.
        tokenizer: From `prepare_tokenizer`.
        seed: Of dropout.
    """

    def __init__(
        self, model: PreTrainedModel, bf16: bool, dataset: Dataset, tokenizer: SequenceTokenizer, seed: int
    ) -> None:
        self.module: nn.Module = model
        # Each process draws what dropout leaves out of its own part of the rows.
        self._dataset, self._pad_id, self._seed = dataset, tokenizer.pad_id, seed + (distributed.rank() << 32)
        self._train, self._validation = (
            token_cache.of(tokenizer, split) for split in (dataset.train, dataset.validation)
        )
        self.lengths: IntArray = self._train.lengths
        computing = copy.deepcopy(model).to(torch.bfloat16) if bf16 else model
        self._graph = _graph(computing)
        self._tuned, self._computing = (
            [each for each in module.parameters() if each.requires_grad] for module in (model, computing)
        )
        self._most = STEP_TOKENS[self._tuned[0].device.type]

    def backward(self, rows: Sequence[int], step: int) -> float:
        """Set the gradients of the mean loss of these training rows, and return it."""
        self._copy_parameters()
        self._graph.train()
        self._graph.begin(self._seed, step)
        loss = 0.0
        for part in sub_batches([int(self.lengths[row]) for row in rows], self._most):
            chosen = [rows[place] for place in part]
            labels = torch.from_numpy(self._dataset.train.labels[chosen].astype(np.int64))
            logits = self._logits(self._train, chosen)
            shared = self._loss(logits, labels.to(logits.device)) / len(rows)
            shared.backward()  # type: ignore[no-untyped-call]
            loss += float(shared.detach())
        if self._computing[0] is not self._tuned[0]:
            for parameter, computing in zip(self._tuned, self._computing, strict=True):
                parameter.grad = None if computing.grad is None else computing.grad.float()
                computing.grad = None
        return loss

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of rows, summed."""
        return nn.functional.cross_entropy(logits, labels, reduction="sum")

    def score(self) -> Scores:
        """Score the validation rows."""
        self._copy_parameters()
        self._graph.eval()
        found: FloatArray = np.zeros((len(self._validation), len(self._dataset.label_names)), np.float32)
        with torch.inference_mode():
            for part in distributed.part(list(sub_batches(self._validation.lengths.tolist(), self._most))):
                found[part] = self._logits(self._validation, part).cpu().numpy()
            distributed.add([torch.from_numpy(found)])
        return metrics.score(calibration.softmax(found), self._dataset.validation.labels, self._dataset.label_names)

    def _logits(self, split: TokenRows, rows: Sequence[int]) -> Tensor:
        """Logits in fp32, `(rows, num_labels)`."""
        device = self._computing[0].device
        input_ids, mask = (
            torch.from_numpy(each).to(device) for each in pad([split[row] for row in rows], self._pad_id)
        )
        logits: Tensor = self._graph(input_ids, mask)
        return logits.float()

    def _copy_parameters(self) -> None:
        if self._computing[0] is not self._tuned[0]:
            with torch.no_grad():
                torch._foreach_copy_(self._computing, self._tuned)


def _graph(model: PreTrainedModel) -> "BertTraining | _Graph":
    plain = lora.without_wrapper(model)
    return BertTraining(plain) if bert.fits(plain) else _Graph(model)


class _Graph(nn.Module):
    """A classifier of an architecture that `BertTraining` does not know."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits `(batch, num_labels)` of ids and mask `(batch, sequence)`."""
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits

    def begin(self, *seed: int) -> None:
        """Let dropout draw what this seed says."""
        seed_torch(*seed)


def seed_torch(*seed: int) -> None:
    """Have torch draw what these numbers say."""
    torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]))
