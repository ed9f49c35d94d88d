"""Fine-tuning an encoder on labelled rows with `transformers`' Trainer.

The loop reports events to a callback and asks another whether to stop; it neither prints nor knows of MLflow. Texts
are tokenized by the same class that serves them (`runtimes.tokenization`).
"""

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from newsbert import evaluation
from newsbert.base_model import BaseModel
from newsbert.config import TrainSettings
from newsbert.data import Dataset, Split
from newsbert.errors import ModelError, UsageError
from newsbert.events import Evaluation, Step
from newsbert.runtimes.tokenization import SequenceTokenizer

# What its progress bars and load reports say, our events say, or it is expected: the classifier's head is new.
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

WARMUP_SHARE = 0.06
EVALUATIONS_PER_EPOCH = 2


@dataclass(frozen=True)
class Trained:
    """The model of the best checkpoint.

    Attributes:
        model: In evaluation mode, fp32, on the CPU.
        best_step: The step of the best checkpoint.
        stopped_early: Whether it was asked to stop.
        seconds: Training time, evaluations included.
        precision: `bf16` or `fp32`.
    """

    model: PreTrainedModel
    best_step: int
    stopped_early: bool
    seconds: float
    precision: str


def prepare_tokenizer(base: BaseModel, directory: Path, max_length: int) -> SequenceTokenizer:
    """Write the base model's tokenizer to `directory` in the bundle's form and load it as serving does.

    Raises:
        UsageError: If the encoder cannot read `max_length` tokens.
        ModelError: If the tokenizer cannot be loaded.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(base.path))
        config = transformers.AutoConfig.from_pretrained(str(base.path))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the base model {base.name!r} cannot be loaded: {error}", "give a BERT-family directory or Hub name"
        ) from error
    limit = min(int(tokenizer.model_max_length), int(getattr(config, "max_position_embeddings", 512)))
    if max_length > limit:
        raise UsageError(
            f"--max-length {max_length} is more than the {limit} tokens that {base.name} reads", f"give {limit} or less"
        )
    tokenizer.save_pretrained(str(directory))
    if not (directory / "tokenizer.json").is_file():
        raise ModelError(f"the tokenizer of {base.name!r} has no fast form", "give a BERT-family base model")
    backend = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    if backend["model"]["type"] == "WordPiece":
        vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
        (directory / "vocab.txt").write_text("".join(f"{token}\n" for token, _ in vocabulary), encoding="utf-8")
    return SequenceTokenizer.load(directory / "tokenizer.json", max_length, pad_id=int(tokenizer.pad_token_id or 0))


def fit(
    base: BaseModel,
    dataset: Dataset,
    tokenizer: SequenceTokenizer,
    settings: TrainSettings,
    work_dir: Path,
    on_event: Callable[[Step | Evaluation], None],
    stop: Callable[[], bool],
) -> Trained:
    """Fine-tune `base` on the training rows and return the best checkpoint by macro F1 on the validation rows.

    Args:
        base: The encoder.
        dataset: Rows with their label names.
        tokenizer: From `prepare_tokenizer`.
        settings: Epochs, batch size, learning rate and seed.
        work_dir: A directory for checkpoints; its content belongs to this call.
        on_event: Called after steps and evaluations.
        stop: Asked after every step; when it answers true, the loop evaluates, keeps the best and returns.

    Raises:
        ModelError: If the base model cannot be loaded as a classifier.
    """
    transformers.set_seed(settings.seed)
    model = classifier(base, dataset.label_names)
    precision = _precision(model)
    train, validation = _Encoded(dataset.train, tokenizer), _Encoded(dataset.validation, tokenizer, by_length=True)
    steps_per_epoch = math.ceil(len(train) / settings.batch_size)
    total_steps = max(1, math.ceil(settings.epochs * steps_per_epoch))
    interval = evaluation_interval(total_steps, settings.epochs)
    arguments = TrainingArguments(
        output_dir=str(work_dir),
        max_steps=total_steps,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=64,
        learning_rate=settings.peak_learning_rate,
        warmup_steps=math.ceil(WARMUP_SHARE * total_steps),
        lr_scheduler_type="linear",
        optim="adamw_torch_fused",
        weight_decay=0.01,
        bf16=precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        train_sampling_strategy="group_by_length",
        logging_steps=max(1, min(10, total_steps // 20)),
        logging_nan_inf_filter=False,
        eval_strategy="steps",
        eval_steps=interval,
        save_strategy="best",
        save_total_limit=1,
        save_only_model=True,
        load_best_model_at_end=True,
        metric_for_best_model="f1_macro",
        greater_is_better=True,
        seed=settings.seed,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
    )
    reporter = _Reporter(on_event, stop)
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=_Collator(tokenizer.pad_id),
        compute_metrics=_Metrics(dataset.label_names),
        callbacks=[reporter],
    )
    trainer.remove_callback(PrinterCallback)
    started = time.perf_counter()
    trainer.train()
    state = trainer.state
    # The Trainer has wrapped the model's forward in autocast: its weights go into a model of their own.
    best = classifier(base, dataset.label_names).eval()
    best.load_state_dict({name: tensor.to("cpu", torch.float32) for name, tensor in model.state_dict().items()})
    best_step = int(state.best_global_step or state.global_step)
    seconds = time.perf_counter() - started
    shutil.rmtree(work_dir, ignore_errors=True)  # the best is in memory, and what comes next needs the room
    return Trained(best, best_step, reporter.stopped, seconds, precision)


def evaluation_interval(total_steps: int, epochs: float) -> int:
    """After how many steps the validation rows are scored."""
    return math.ceil(total_steps / max(1, round(epochs * EVALUATIONS_PER_EPOCH)))


def classifier(base: BaseModel, label_names: tuple[str, ...]) -> PreTrainedModel:
    """Load the encoder with a new classifier's head, the table of word vectors frozen.

    Raises:
        ModelError: If it cannot be loaded.
    """
    names = dict(enumerate(label_names))
    try:
        model = AutoModelForSequenceClassification.from_pretrained(
            str(base.path),
            num_labels=len(names),
            id2label=names,
            label2id={name: index for index, name in names.items()},
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"the base model {base.name!r} cannot be loaded: {error}", "give a BERT-family directory or Hub name"
        ) from error
    # The table of word vectors is half of a small encoder's parameters and most of its optimizer's work, and few of
    # its rows see a gradient on a data set of this size.
    model.get_input_embeddings().requires_grad_(False)
    return model


def _precision(model: PreTrainedModel) -> str:
    """Choose bf16 where the processor has it and it is faster here, else fp32.

    Having the instructions says little: on one machine bf16 made a step twice as fast, on another half as fast. So a
    small step is timed both ways.
    """
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    if not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return "fp32"
    return "bf16" if _step_seconds(model, True) < 0.9 * _step_seconds(model, False) else "fp32"


def _step_seconds(model: PreTrainedModel, bf16: bool) -> float:
    """Median time of forward and backward of a batch of 8 by 64 tokens."""
    input_ids = torch.ones((8, 64), dtype=torch.int64)
    labels = torch.zeros(8, dtype=torch.int64)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), labels=labels).loss
        loss.backward()
        seconds.append(time.perf_counter() - started)
    model.zero_grad(set_to_none=True)
    return sorted(seconds)[2]


class _Encoded(torch.utils.data.Dataset[dict[str, Any]]):
    """Token ids and labels of a split; `by_length` puts like lengths together, so that little is padded."""

    def __init__(self, split: Split, tokenizer: SequenceTokenizer, by_length: bool = False) -> None:
        ids = tokenizer.encode(split.texts)
        order = sorted(range(len(ids)), key=lambda index: len(ids[index])) if by_length else range(len(ids))
        self._rows = [{"input_ids": ids[index], "labels": split.labels[index]} for index in order]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._rows[index]


class _Collator:
    """Pad a batch's rows to the longest of them."""

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        from newsbert.runtimes.tokenization import pad

        input_ids, attention_mask = pad([row["input_ids"] for row in rows], self._pad_id)
        return {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy(attention_mask),
            "labels": torch.tensor([row["labels"] for row in rows]),
        }


class _Metrics:
    """Scores of the validation rows as the Trainer wants them."""

    def __init__(self, label_names: tuple[str, ...]) -> None:
        self._label_names = label_names

    def __call__(self, prediction: transformers.EvalPrediction) -> dict[str, float]:
        probabilities = evaluation.softmax(np.asarray(prediction.predictions))
        scores = evaluation.score(probabilities, np.asarray(prediction.label_ids).tolist(), self._label_names)
        return {"accuracy": scores.accuracy, "f1_macro": scores.f1_macro}


class _Reporter(TrainerCallback):  # type: ignore[misc]
    """Turns the Trainer's callbacks into our events, and a wish to stop into its controls."""

    def __init__(self, on_event: Callable[[Step | Evaluation], None], stop: Callable[[], bool]) -> None:
        self._on_event = on_event
        self._stop = stop
        self._loss: float | None = None
        self._learning_rate: float | None = None
        self._best = -math.inf
        self._started = time.monotonic()
        self.stopped = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._started = time.monotonic()
        self._report(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_evaluate = True
        elif self._stop():
            self.stopped = True
            control.should_training_stop = control.should_evaluate = True
        self._report(state)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **kwargs: Any,
    ) -> None:
        if "loss" in logs:
            self._loss, self._learning_rate = float(logs["loss"]), float(logs["learning_rate"])
            self._report(state)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **kwargs: Any,
    ) -> None:
        score = metrics["eval_f1_macro"]
        best, self._best = score > self._best, max(score, self._best)
        self._on_event(
            Evaluation(
                state.global_step, float(state.epoch or 0), metrics["eval_accuracy"], score, metrics["eval_loss"], best
            )
        )

    def _report(self, state: TrainerState) -> None:
        elapsed = time.monotonic() - self._started
        left = elapsed / state.global_step * (state.max_steps - state.global_step) if state.global_step else math.nan
        self._on_event(
            Step(state.global_step, state.max_steps, float(state.epoch or 0), self._loss, self._learning_rate, left)
        )
