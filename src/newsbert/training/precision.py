"""Precision of a training: bf16 if it is faster on this machine."""

import copy
import hashlib
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import PreTrainedModel

from newsbert.core import cache, cpu
from newsbert.core.settings import TrainSettings
from newsbert.training.graphs import make_graph

_NUM_TIMINGS = 7
"""Number of times that a step is timed with bf16 and with fp32, alternately."""


def choose_precision(
    model: PreTrainedModel,
    settings: TrainSettings,
    time_steps: Callable[[PreTrainedModel], dict[str, float]] | None = None,
) -> str:
    """Choose the precision of a training; `auto` is bf16 if the processor supports it and it is faster here.

    Support alone proves little: on one machine bf16 made a step twice as fast, on another half as fast. So a small
    step is timed both ways. It is timed once per machine, which then gives the same metrics again.

    Args:
        model: The classifier.
        settings: Settings with the precision, or `auto`.
        time_steps: Times a step in `bf16` and in `fp32`.

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
        seconds = (time_steps or time_training_steps)(model)
        faster = seconds["bf16"] < 0.9 * seconds["fp32"]
        (part / "precision").write_text("bf16" if faster else "fp32", encoding="utf-8")

    key = f"{platform.node()} {cpu.cores()} {torch.__version__} {model.config.to_json_string()}"
    directory = cache.get_or_create_dir("precision", hashlib.sha256(key.encode()).hexdigest(), write)
    return (directory / "precision").read_text(encoding="utf-8")


def time_training_steps(model: PreTrainedModel) -> dict[str, float]:
    """Return the minimum time of forward and backward for a batch of 8 by 64 tokens: other load only prolongs it."""
    input_ids = torch.ones((8, 64), dtype=torch.int64)
    graphs = {
        name: make_graph(copy.deepcopy(model).to(dtype))
        for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32))
    }
    seconds = dict.fromkeys(graphs, math.inf)
    for _ in range(_NUM_TIMINGS):
        for name, graph in graphs.items():
            started = time.perf_counter()
            graph(input_ids, torch.ones_like(input_ids)).float().sum().backward()
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    return seconds
