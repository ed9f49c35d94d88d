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
"""Learning rate of a layer relative to that of the layer above it, in an encoder that is tuned as a whole.

The embeddings are the lowest layer. The decay preserves a small encoder's knowledge of words.
Sources: https://arxiv.org/abs/1801.06146; 0.8 as for small encoders in https://arxiv.org/abs/2003.10555;
benchmarks/few_labels.py."""


def count_steps(num_rows: int, settings: TrainSettings, evaluations_per_epoch: float) -> tuple[int, int]:
    """Return the number of steps of a training, and the number of steps between evaluations."""
    epochs = settings.choose_epochs(num_rows)
    num_steps = max(1, math.ceil(epochs * math.ceil(num_rows / settings.choose_batch_size(num_rows))))
    interval = math.ceil(num_steps / max(1, round(epochs * evaluations_per_epoch)))
    return num_steps if settings.max_steps is None else min(num_steps, settings.max_steps), interval


def learning_rate(step: int, num_steps: int, peak: float) -> float:
    """Return the learning rate of a step, counted from 1: linear warmup to the peak, then linear decay to 0."""
    warmup = math.ceil(WARMUP_RATIO * num_steps)
    return peak * (step / warmup if step < warmup else (num_steps - step + 1) / (num_steps - warmup + 1))


def make_optimizer(parameters: Mapping[str, nn.Parameter], layer_decay: float) -> torch.optim.Optimizer:
    """Create AdamW without weight decay for biases and norms; a group's `scale` multiplies its learning rate."""
    scales = learning_rate_scales(list(parameters), layer_decay)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        groups.setdefault((scales[name], WEIGHT_DECAY if parameter.ndim > 1 else 0.0), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": members, "weight_decay": decay, "scale": scale} for (scale, decay), members in groups.items()],
        fused=True,
    )


def learning_rate_scales(names: Sequence[str], layer_decay: float) -> dict[str, float]:
    """Return the factors of the parameters' learning rates, by the layer number in their names."""
    layers = {name: int(match[1]) for name in names if (match := re.search(r"\.layers?\.(\d+)\.", name))}
    top = max(layers.values(), default=0)
    layers |= {name: -1 for name in names if name not in layers and "embeddings" in name}
    return {name: layer_decay ** (top - layers.get(name, top)) for name in names}
