"""The optimizer, and the learning rate of every step and layer."""

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from newsbert.core.settings import TrainSettings

WARMUP_SHARE = 0.06

WEIGHT_DECAY = 0.01

LAYER_DECAY = 0.8
"""Each layer of an encoder that is tuned as a whole learns at so much of the rate of the one above it, the embeddings
below them all: what a small encoder knows of words is kept. https://arxiv.org/abs/1801.06146; 0.8 as for small encoders
in https://arxiv.org/abs/2003.10555; benchmarks/few_labels.py."""


def steps(rows: int, settings: TrainSettings) -> tuple[int, int]:
    """How many steps a training of so many rows has, and after how many the validation rows are scored."""
    epochs = settings.passes(rows)
    total = max(1, math.ceil(epochs * math.ceil(rows / settings.rows_a_step(rows))))
    interval = math.ceil(total / max(1, round(epochs * EVALUATIONS_PER_EPOCH)))
    return total if settings.max_steps is None else min(total, settings.max_steps), interval


def learning_rate(step: int, total: int, peak: float) -> float:
    """The learning rate of a step, of which the first is 1: it rises to the peak, then falls to nothing, linearly."""
    warmup = math.ceil(WARMUP_SHARE * total)
    return peak * (step / warmup if step < warmup else (total - step + 1) / (total - warmup + 1))


def make_optimizer(parameters: Mapping[str, nn.Parameter], layer_decay: float) -> torch.optim.Optimizer:
    """AdamW; biases and the parameters of norms do not decay, and each learns at its layer's share of the rate."""
    shares, groups = rate_shares(list(parameters), layer_decay), dict[tuple[float, float], list[nn.Parameter]]()
    for name, parameter in parameters.items():
        groups.setdefault((shares[name], WEIGHT_DECAY if parameter.ndim > 1 else 0.0), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": own, "weight_decay": decay, "share": share} for (share, decay), own in groups.items()], fused=True
    )


def rate_shares(names: Sequence[str], layer_decay: float) -> dict[str, float]:
    """At what share of the learning rate parameters learn, by the number of the layer that is in their names."""
    layers = {name: int(found[1]) for name in names if (found := re.search(r"\.layers?\.(\d+)\.", name))}
    above = max(layers.values(), default=0)
    layers |= {name: -1 for name in names if name not in layers and "embeddings" in name}
    return {name: layer_decay ** (above - layers.get(name, above)) for name in names}


EVALUATIONS_PER_EPOCH = 2
