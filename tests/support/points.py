"""A task for the training loop that needs no encoder."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from newsbert.core.settings import TrainSettings
from newsbert.core.types import IntArray
from newsbert.evaluation import calibration, metrics
from newsbert.evaluation.metrics import Scores

SETTINGS = TrainSettings(epochs=4, batch_size=8, learning_rate=0.1)

ROWS = 50


class Points:
    """Classifies points of the plane; records which rows each step read."""

    def __init__(self, nan_at: int | None = None) -> None:
        generator = torch.Generator().manual_seed(1)
        self.points = torch.randn(ROWS, 2, generator=generator)
        self.labels = (self.points.sum(1) > 0).long()
        torch.manual_seed(2)
        self.module: nn.Module = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
        self.lengths: IntArray = np.arange(ROWS) % 7
        self.read: dict[int, list[int]] = {}
        self.nan_at = nan_at

    def backward(self, rows: Sequence[int], step: int) -> float:
        self.read[step] = list(rows)
        loss = nn.functional.cross_entropy(self.module(self.points[list(rows)]), self.labels[list(rows)])
        if step == self.nan_at:
            loss = loss * math.nan
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def score(self) -> Scores:
        with torch.inference_mode():
            probabilities = calibration.softmax(self.module(self.points).numpy())
        return metrics.score(probabilities, self.labels.tolist(), ("below", "above"))

    @property
    def weights(self) -> list[list[float]]:
        return [parameter.detach().flatten().tolist() for parameter in self.module.parameters()]
