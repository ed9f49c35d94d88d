"""Contrastive tuning for few rows: texts of one label are drawn together, and those of others apart.

Then a logistic regression on the texts' vectors becomes the model's head. Few rows make many pairs, so the encoder
learns more from them than from their labels one by one.

A vector is the mean of a text's tokens: sentence encoders were trained with it, and few rows cannot teach them another
pooling. An added layer with constant weights computes it, so the model ships like any other.

Source: SetFit, https://arxiv.org/abs/2209.11055. Unlike there, every pair within a batch counts. Measurements:
benchmarks/few_labels.py.
"""

import copy

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from transformers import PreTrainedModel

from newsbert.core.types import FloatArray, IntArray
from newsbert.errors import UsageError
from newsbert.evaluation import calibration, metrics
from newsbert.evaluation.metrics import Scores
from newsbert.inference.tokenization import SequenceTokenizer
from newsbert.training import bert_graph, fine_tuning
from newsbert.training.base_model import BaseModel
from newsbert.training.bert import BertTraining
from newsbert.training.checkpoints import Checkpoints
from newsbert.training.context import TrainingContext
from newsbert.training.fine_tuning import ClassificationTask, TrainedModel, load_classifier
from newsbert.training.trainer import Trainer

_POOLER_SCALE = 0.1
"""Scale of the pooler's identity matrix: in this range its tanh is almost linear."""

_MEAN_SCALE = 50.0
"""Factor of the mean of all tokens, to which the added layer's residual connection adds the first token."""


def fit(context: TrainingContext, tokenizer: SequenceTokenizer, checkpoints: Checkpoints) -> TrainedModel:
    """Tune the encoder on pairs of training rows, fit the head, and return the model of the selected checkpoint.

    Args:
        context: The training.
        tokenizer: From `prepare_tokenizer`.
        checkpoints: Store of the checkpoints; if it has one already, the training resumes from it.

    Raises:
        ModelError: If the base model cannot be loaded as a classifier.
        UsageError: If its architecture is not BERT.
        DivergedError: If the loss is not finite before there are selected parameters.
    """
    return fine_tuning.fit(
        context, tokenizer, checkpoints, task=ContrastiveTask, trainer=ContrastiveTrainer, load=load_encoder
    )


class ContrastiveTrainer(Trainer):
    """Trainer that evaluates the last step alone: a few validation rows cannot tell which of the steps is the best."""

    evaluations_per_epoch = 0.0


class ContrastiveTask(ClassificationTask):
    """Task that tunes an encoder on pairs, and scores it with a logistic regression on its vectors."""

    def make_graph(self, model: PreTrainedModel) -> "_VectorGraph":
        """Return the module that computes the vectors that the classifier reads."""
        return _VectorGraph(model)

    def compute_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the mean squared error of the cosines of all pairs, times the number of rows.

        The cosine is to be 1 for a pair of one label and 0 for others; both kinds of pairs have the same weight.
        """
        vectors = nn.functional.normalize(outputs)
        same = labels[:, None] == labels
        errors = (vectors @ vectors.T - same.to(vectors.dtype)).square()
        is_pair = torch.ones_like(same).triu(1)
        kinds = [errors[kind & is_pair] for kind in (same, ~same)]
        means = [kind.mean() for kind in kinds if len(kind)]
        return torch.stack(means).mean() * len(labels) if means else outputs.sum() * 0.0

    def score(self) -> Scores:
        """Fit a head to the training rows, and score the validation rows with it."""
        weights, bias = self._fit_head()
        logits = self.predict(self._validation, self._model.config.hidden_size) @ weights.T + bias
        return metrics.score(calibration.softmax(logits), self._dataset.scored.labels, self._dataset.label_names)

    def finish(self) -> None:
        """Fit the model's head to the vectors of the training rows."""
        weights, bias = self._fit_head()
        pooler, classifier = self._model.bert.pooler.dense, self._model.classifier
        with torch.no_grad():
            pooler.weight.copy_(torch.eye(len(pooler.weight)) * _POOLER_SCALE)
            pooler.bias.zero_()
            classifier.weight.copy_(torch.from_numpy(weights))
            classifier.bias.copy_(torch.from_numpy(bias))

    def _fit_head(self) -> tuple[FloatArray, FloatArray]:
        return _fit_logistic_regression(
            self.predict(self._train, self._model.config.hidden_size), self._dataset.train.labels
        )


class _VectorGraph(nn.Module):
    """A BERT encoder as a function of two tensors, whose outputs are what the classifier reads."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.encoder = BertTraining(model)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return vectors `(batch, hidden)` of ids and mask `(batch, sequence)`."""
        return torch.tanh(_POOLER_SCALE * self.encoder.encode(input_ids, attention_mask))

    def begin(self, *seed: int) -> None:
        """Seed the dropout masks."""
        self.encoder.begin(*seed)


def _fit_logistic_regression(vectors: FloatArray, labels: IntArray) -> tuple[FloatArray, FloatArray]:
    """Fit a logistic regression to vectors `(rows, hidden)`; return its weights `(num_labels, hidden)` and biases.

    The regularization supposes vectors of length 1, so all are scaled by their mean length.
    """
    length = float(np.linalg.norm(vectors, axis=1).mean())
    head = LogisticRegression(max_iter=1_000).fit(vectors.astype(np.float64) / length, labels)
    weights, bias = head.coef_ / length, head.intercept_
    if len(bias) == 1:  # of two labels: the logit of the second
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return weights.astype(np.float32), bias.astype(np.float32)


def load_encoder(base: BaseModel, label_names: tuple[str, ...]) -> PreTrainedModel:
    """Load a classifier whose head is not tuned, with an added layer that computes the mean of all tokens.

    Raises:
        ModelError: If it cannot be loaded.
        UsageError: If its architecture is not BERT.
    """
    model = load_classifier(base, label_names)
    if not bert_graph.supports(model):
        raise UsageError(
            f"--tune contrastive is for BERT's architecture, and {base.name!r} is {model.config.model_type}",
            "the same command with --tune full",
        )
    for module in (model.bert.pooler, model.classifier):
        module.requires_grad_(False)
    # Unlike tuning on labels, tuning on pairs gains from tuned word embeddings.
    model.bert.embeddings.requires_grad_(True)
    _add_mean_layer(model)
    return model


def _add_mean_layer(model: PreTrainedModel) -> None:
    """Add a layer with constant weights, whose output for the first token is the normalized mean of all tokens."""
    layer = copy.deepcopy(model.bert.encoder.layer[-1]).requires_grad_(False)
    identity = torch.eye(model.config.hidden_size) * _MEAN_SCALE**0.5
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        for linear in (layer.attention.self.value, layer.attention.output.dense):
            linear.weight.copy_(identity)  # query and key are 0: attention to all tokens is the same
        for norm in (layer.attention.output.LayerNorm, layer.output.LayerNorm):
            norm.weight.fill_(1.0)
    model.bert.encoder.layer.append(layer)
    model.config.num_hidden_layers += 1
