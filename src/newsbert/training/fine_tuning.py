"""Fine-tuning: loading a base model as a classifier, and the training step.

Training and serving tokenize texts with the same class (`newsbert.inference.tokenization`).
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from newsbert.core.events import History
from newsbert.core.types import FloatArray, IntArray
from newsbert.data.dataset import Dataset
from newsbert.errors import ModelError, first_line
from newsbert.evaluation import calibration, metrics
from newsbert.evaluation.metrics import Scores
from newsbert.inference.runtime import sub_batches
from newsbert.inference.tokenization import SequenceTokenizer, pad
from newsbert.training import distributed, lora, token_cache
from newsbert.training.base_model import BaseModel
from newsbert.training.checkpoints import Checkpoints
from newsbert.training.context import TrainingContext
from newsbert.training.graphs import TrainingGraph, TransformersGraph, make_graph
from newsbert.training.memory import keep_freed_memory
from newsbert.training.precision import choose_precision
from newsbert.training.token_cache import TokenRows
from newsbert.training.trainer import Trainer, TrainOutput

# Its progress bars and load reports repeat our events, or report the expected: the classification head is new.
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


@dataclass(frozen=True)
class TrainedModel:
    """The model of the selected checkpoint.

    Attributes:
        model: In evaluation mode, fp32, on the CPU.
        best_step: The step of that checkpoint.
        stopped_early: True if a stop was requested.
        diverged_at: The step whose loss was not finite, which ended the training.
        seconds: Training time, evaluations included.
        precision: `bf16` or `fp32`.
        history: Data of the learning curves.
    """

    model: PreTrainedModel
    best_step: int
    stopped_early: bool
    diverged_at: int | None
    seconds: float
    precision: str
    history: History

    @classmethod
    def from_outcome(cls, model: PreTrainedModel, outcome: TrainOutput, precision: str) -> "TrainedModel":
        """Create it from a model and the outcome of its training."""
        state = outcome.state
        return cls(
            model.eval(),
            state.best_step,
            outcome.stopped,
            outcome.diverged_at,
            state.seconds,
            precision,
            state.history,
        )


def check(base: BaseModel, tokenizer: SequenceTokenizer) -> None:
    """Refuse an encoder that cannot be loaded completely, or does not fit its tokenizer.

    Raises:
        ModelError: If it cannot be tuned.
    """
    model = load_classifier(base, ("0", "1")).eval()
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
            padded, alone = (TransformersGraph(model)(*map(torch.from_numpy, arrays))[-1] for arrays in inputs)
    except Exception as error:  # architectures that are not encoders raise all kinds
        raise ModelError(
            f"{base.name!r} ({model.config.model_type}) does not classify texts: {first_line(error)}",
            "give an encoder, such as one of BERT's family; `--base-model minilm` is the bundled one",
        ) from error
    if not torch.allclose(padded, alone, rtol=1e-2, atol=1e-2):
        raise ModelError(
            f"{base.name!r} ({model.config.model_type}) answers otherwise beside longer texts",
            "give an encoder, such as one of BERT's family; `--base-model minilm` is the bundled one",
        )


def load_classifier(base: BaseModel, label_names: tuple[str, ...]) -> PreTrainedModel:
    """Load the encoder with a new classification head; the embeddings are frozen.

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
            problem_type="single_label_classification",  # regardless of the base model's own head
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
        problem = "has another shape than config.json says" if new[0] in shapes else "is missing"
        raise ModelError(
            f"the weights of {base.name!r} are not those of its encoder: {new[0]} {problem}, {len(new)} in all",
            "fetch the model again",
        )
    # The word embeddings are half of a small encoder's parameters and most of its optimizer's work. Few of their rows
    # get a gradient on a data set of this size. Positions and norm gain nothing, and cost backward's last products.
    embeddings = getattr(model.base_model, "embeddings", model.get_input_embeddings())
    embeddings.requires_grad_(False)
    return model


class ClassificationTask:
    """Task that tunes a classifier of token ids, computing with a copy of it in bf16 if requested.

    A subclass may replace the loss, the graph or the scores: override `compute_loss`, `compute_outputs`, `make_graph`
    or `score`.

    Args:
        model: Classifier to tune, in fp32 and on its device; it may have adapters.
        bf16: Whether to compute in bf16.
        dataset: Rows with their label names.
        tokenizer: From `prepare_tokenizer`.
        seed: Seed of dropout.
    """

    max_tokens: ClassVar[Mapping[str, int]] = {"cpu": 4096, "cuda": 65_536}
    """Maximum number of tokens in a sub-batch, padding included: a step runs in sub-batches, to bound its memory."""

    def __init__(
        self, model: PreTrainedModel, bf16: bool, dataset: Dataset, tokenizer: SequenceTokenizer, seed: int
    ) -> None:
        self.module: nn.Module = model
        self._model = model
        # Every process draws the dropout masks of its own part of the rows.
        self._dataset, self._pad_id, self._seed = dataset, tokenizer.pad_id, seed + (distributed.rank() << 32)
        self._train, self._validation = (token_cache.of(tokenizer, split) for split in (dataset.train, dataset.scored))
        self.lengths: IntArray = self._train.lengths
        compute_model = copy.deepcopy(model).to(torch.bfloat16) if bf16 else model
        self._graph = self.make_graph(compute_model)
        self._master_parameters, self._compute_parameters = (
            [parameter for parameter in module.parameters() if parameter.requires_grad]
            for module in (model, compute_model)
        )
        self._max_tokens = self.max_tokens[self._master_parameters[0].device.type]

    def make_graph(self, model: PreTrainedModel) -> TrainingGraph:
        """Return the module that computes the logits of a classifier."""
        return make_graph(model)

    def backward(self, rows: Sequence[int], step: int) -> float:
        """Set the gradients of the mean loss of these training rows, and return the loss."""
        self._copy_parameters()
        self._graph.train()
        self._graph.begin(self._seed, step)
        total = 0.0
        for part in sub_batches([int(self.lengths[row]) for row in rows], self._max_tokens):
            batch = [rows[index] for index in part]
            labels = torch.from_numpy(self._dataset.train.labels[batch].astype(np.int64))
            outputs = self.compute_outputs(self._train, batch)
            loss = self.compute_loss(outputs, labels.to(outputs.device)) / len(rows)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        if self._compute_parameters[0] is not self._master_parameters[0]:
            for parameter, copied in zip(self._master_parameters, self._compute_parameters, strict=True):
                parameter.grad = None if copied.grad is None else copied.grad.float()
                copied.grad = None
        return total

    def compute_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the sum of the losses of rows, from their logits."""
        return nn.functional.cross_entropy(outputs, labels, reduction="sum")

    def compute_outputs(self, split: TokenRows, rows: Sequence[int]) -> Tensor:
        """Return the graph's outputs in fp32: logits `(rows, num_labels)`."""
        device = self._compute_parameters[0].device
        input_ids, mask = (
            torch.from_numpy(array).to(device) for array in pad([split[row] for row in rows], self._pad_id)
        )
        outputs: Tensor = self._graph(input_ids, mask)
        return outputs.float()

    def score(self) -> Scores:
        """Score the validation rows."""
        logits = self.predict(self._validation, len(self._dataset.label_names))
        return metrics.score(calibration.softmax(logits), self._dataset.scored.labels, self._dataset.label_names)

    def predict(self, split: TokenRows, size: int) -> FloatArray:
        """Return the graph's outputs of all rows of a split, without dropout: `(rows, size)`."""
        self._copy_parameters()
        self._graph.eval()
        outputs: FloatArray = np.zeros((len(split), size), np.float32)
        with torch.inference_mode():
            for part in distributed.shard(list(sub_batches(split.lengths.tolist(), self._max_tokens))):
                outputs[part] = self.compute_outputs(split, part).cpu().numpy()
            distributed.all_reduce([torch.from_numpy(outputs)])
        return outputs

    def finish(self) -> None:
        """Complete the model, whose parameters are the selected ones."""

    def _copy_parameters(self) -> None:
        if self._compute_parameters[0] is not self._master_parameters[0]:
            with torch.no_grad():
                torch._foreach_copy_(self._compute_parameters, self._master_parameters)


def fit(
    context: TrainingContext,
    tokenizer: SequenceTokenizer,
    checkpoints: Checkpoints,
    *,
    task: type[ClassificationTask] = ClassificationTask,
    trainer: type[Trainer] = Trainer,
    load: Callable[[BaseModel, tuple[str, ...]], PreTrainedModel] = load_classifier,
) -> TrainedModel:
    """Fine-tune the encoder on the training rows and return the model of the selected checkpoint.

    Args:
        context: The training.
        tokenizer: From `prepare_tokenizer`.
        checkpoints: Store of the checkpoints; if it has one already, the training resumes from it.
        task: Computes loss and scores.
        trainer: Makes the steps.
        load: Loads the classifier.

    Raises:
        ModelError: If the base model cannot be loaded as a classifier.
        DivergedError: If the loss is not finite before there are selected parameters.
    """
    settings, dataset = context.settings, context.dataset
    transformers.set_seed(settings.seed)
    model = load(context.base_model, dataset.label_names)
    precision = distributed.broadcast(
        lambda: checkpoints.remember("precision", lambda: choose_precision(model, settings))
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    adapted = lora.adapt(model, settings.lora_rank) if settings.tune == "lora" else model
    training_task = task(adapted.to(device), precision == "bf16", dataset, tokenizer, settings.seed)
    with keep_freed_memory():
        outcome = trainer(training_task, settings, checkpoints, context.on_event, context.should_stop).train()
    training_task.finish()
    merged = lora.merge(adapted) if settings.tune == "lora" else model
    return TrainedModel.from_outcome(merged.to("cpu"), outcome, precision)
