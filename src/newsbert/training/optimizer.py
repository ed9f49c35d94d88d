"""The optimizer, and the learning rate of every step and layer."""

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from newsbert.core.settings import TrainSettings

WARMUP_RATIO = 0.06
WEIGHT_DECAY = 0.01
LAYER_DECAY = 0.8
"""Each layer of an encoder that is tuned as a whole learns at so much of the rate of the one above it, the embeddings
below them all: what a small encoder knows of words is kept. https://arxiv.org/abs/1801.06146; 0.8 as for small encoders
in https://arxiv.org/abs/2003.10555; benchmarks/few_labels.py."""


def count_steps(num_rows: int, settings: TrainSettings, evaluations_per_epoch: float) -> tuple[int, int]:
    """Return how many steps a training has, and after how many of them the validation rows are scored."""
    epochs = settings.passes(num_rows)
    num_steps = max(1, math.ceil(epochs * math.ceil(num_rows / settings.rows_a_step(num_rows))))
    interval = math.ceil(num_steps / max(1, round(epochs * evaluations_per_epoch)))
    return num_steps if settings.max_steps is None else min(num_steps, settings.max_steps), interval


def learning_rate(step: int, num_steps: int, peak: float) -> float:
    """Return the learning rate of a step, of which the first is 1: it rises to the peak, then falls to 0, linearly."""
    warmup = math.ceil(WARMUP_RATIO * num_steps)
    return peak * (step / warmup if step < warmup else (num_steps - step + 1) / (num_steps - warmup + 1))


def make_optimizer(
    parameters: Mapping[str, nn.Parameter], layer_decay: float, *, fused: bool = True
) -> torch.optim.Optimizer:
    """Make AdamW; biases and the parameters of norms do not decay. A group's `scale` is that of its learning rate."""
    scales = learning_rate_scales(list(parameters), layer_decay)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        groups.setdefault((scales[name], WEIGHT_DECAY if parameter.ndim > 1 else 0.0), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": own, "weight_decay": decay, "scale": scale} for (scale, decay), own in groups.items()], fused=fused
    )


def learning_rate_scales(names: Sequence[str], layer_decay: float) -> dict[str, float]:
    """Return by what the learning rate of each parameter is multiplied, by the number of the layer in its name."""
    layers = {name: int(match[1]) for name in names if (match := re.search(r"\.layers?\.(\d+)\.", name))}
    top = max(layers.values(), default=0)
    layers |= {name: -1 for name in names if name not in layers and "embeddings" in name}
    return {name: layer_decay ** (top - layers.get(name, top)) for name in names}
