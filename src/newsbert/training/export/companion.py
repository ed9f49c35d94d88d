"""The companion of a bundle: fitting it, and deciding on validation rows what its answers are used for."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newsbert.bundle.bundle import COMPANION_FILE
from newsbert.bundle.contract import CompanionInfo, GoldenText
from newsbert.core.events import Note, Phase, Progress
from newsbert.core.settings import MAX_FEW_ROWS
from newsbert.core.types import FloatArray
from newsbert.data.text import preprocess
from newsbert.evaluation import mixing
from newsbert.evaluation.mixing import Mix
from newsbert.inference.companion import Companion
from newsbert.training import companion as fitting
from newsbert.training.companion import Examples
from newsbert.training.context import TrainingContext

_FITTING = "fitting the companion"


@dataclass(frozen=True)
class FittedCompanion:
    """A companion whose mix with the model is not worse than the model on validation rows.

    Attributes:
        companion: The companion.
        info: What the contract says of it.
    """

    companion: Companion
    info: CompanionInfo

    def combine(self, model: FloatArray, sequences: Sequence[str]) -> FloatArray:
        """Return the probabilities of texts as they are served: `(texts, num_labels)`.

        Args:
            model: The model's probabilities, `(texts, num_labels)`.
            sequences: The prepared texts.
        """
        logs = self.companion.predict(sequences)
        return np.where(self._is_sure(logs)[:, None], np.exp(logs), self._mix(model, logs))

    def mix(self, model: FloatArray, sequences: Sequence[str]) -> FloatArray:
        """Return the probabilities of texts that the companion does not answer alone; see `combine`."""
        return self._mix(model, self.companion.predict(sequences))

    def _mix(self, model: FloatArray, logs: FloatArray) -> FloatArray:
        return Mix(self.info.model_weight, self.info.companion_weight).apply(_log(model), logs)

    def predict(self, sequences: Sequence[str]) -> FloatArray:
        """Return the companion's own probabilities of prepared texts: `(texts, num_labels)`."""
        return np.asarray(np.exp(self.companion.predict(sequences)))

    def find_answered(self, sequences: Sequence[str]) -> NDArray[np.bool_]:
        """Return which prepared texts the companion answers alone: `(texts,)`."""
        return self._is_sure(self.companion.predict(sequences))

    def _is_sure(self, logs: FloatArray) -> NDArray[np.bool_]:
        return mixing.find_confident(logs, math.inf if self.info.threshold is None else self.info.threshold)


def fit(context: TrainingContext, model: FloatArray, unlabelled: FloatArray) -> FittedCompanion | None:
    """Fit a companion, its mix with the model, and the threshold of the cascade.

    Args:
        context: The training: rows to fit it on, and validation rows for mix and threshold.
        model: The model's probabilities of the validation rows, `(rows, num_labels)`.
        unlabelled: The model's probabilities of the texts without labels, `(texts, num_labels)`.

    Returns:
        The companion, or `None` if there should be none, the rows are few, or the mix is worse than the model.
    """
    settings, rows, on_event = context.settings, context.dataset, context.on_event
    if settings.companion == "none":
        return None
    if len(rows.train) + len(rows.unlabelled) <= MAX_FEW_ROWS * len(rows.label_names):
        return None
    examples = Examples(rows.train.texts, rows.train.labels, len(rows.label_names), rows.unlabelled, unlabelled)
    on_event(Phase(_FITTING))
    companion = fitting.fit(examples, settings.seed, lambda done, total: on_event(Progress(_FITTING, done, total)))
    labels = rows.validation.labels.tolist()
    logs = companion.predict(rows.validation.texts)
    mix = mixing.fit_mix(_log(model), logs, labels)
    if mix is None:
        on_event(Note(f"no companion: on {len(labels)} validation rows the model is more accurate without it"))
        return None
    mixed = mix.apply(_log(model), logs)
    threshold = mixing.choose_cascade_threshold(mixed, logs, labels, settings.cascade_loss)
    # With fewer rows there can be none, which is no news.
    if (
        threshold.threshold is None
        and 100 * mixing.bound_difference(0, 0, max(1, len(labels))) <= settings.cascade_loss
    ):
        on_event(
            Note(
                f"no cascade: {len(labels)} validation rows do not show that it costs at most "
                f"{settings.cascade_loss:g} points of accuracy; the encoder reads every text"
            )
        )
    info = dataclasses.replace(
        companion.info,
        model_weight=mix.model_weight,
        companion_weight=mix.companion_weight,
        threshold=threshold.threshold,
        max_loss=settings.cascade_loss,
        loss=threshold.loss,
        coverage=threshold.coverage,
        rows=len(labels),
    )
    return FittedCompanion(companion, info)


def write(part: Path, contract: dict[str, Any], fitted: FittedCompanion) -> None:
    """Write the companion to a bundle, and its effect on the golden texts to the contract.

    Args:
        part: The bundle's directory.
        contract: Fields of the contract.
        fitted: The companion.
    """
    fitted.companion.save(part / COMPANION_FILE)
    golden: list[GoldenText] = contract["golden"]
    sequences = [preprocess(text.item, contract["cleaning"]) for text in golden]

    def mix(rows: Sequence[Sequence[float]]) -> list[list[float]]:
        mixed: list[list[float]] = fitted.mix(np.array(rows, np.float32), sequences).tolist()
        return mixed

    contract["companion"] = dataclasses.replace(fitted.info, golden=fitted.predict(sequences).tolist())
    contract["golden"] = [
        GoldenText(text.item, row)
        for text, row in zip(golden, mix([text.probabilities for text in golden]), strict=True)
    ]
    contract["graphs"] = {
        name: dataclasses.replace(graph, golden=mix(graph.golden)) if graph.golden else graph
        for name, graph in contract["graphs"].items()
    }


def _log(probabilities: FloatArray) -> FloatArray:
    return np.asarray(np.log(probabilities.clip(np.finfo(np.float32).tiny)))
