"""Processes of a training: those that torchrun or Ray has started, or this one alone.

Every process reads its part of a step's rows. Gradients are summed, so that all processes have the same parameters.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from newsbert.core import environment

Value = TypeVar("Value")
Row = TypeVar("Row")


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """Join the process group, if torchrun has started one."""
    if environment.torchrun_rank() is None:
        yield
        return
    dist.init_process_group()
    if torch.cuda.is_available():
        torch.cuda.set_device(dist.get_node_local_rank())
    try:
        yield
        dist.barrier()  # a process that leaves during communication would abort its peers
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Return the rank of this process; rank 0 saves checkpoints and reports events."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def shard(rows: Sequence[Row]) -> Sequence[Row]:
    """Return this process's part of the rows."""
    return rows[rank() :: size()]


def broadcast(make: Callable[[], Value]) -> Value:
    """Return, in all processes, the value that the first one makes."""
    if size() == 1:
        return make()
    values: list[Value | None] = [make() if rank() == 0 else None]
    dist.broadcast_object_list(values)
    return values[0]  # type: ignore[return-value]


def all_reduce(tensors: Sequence[Tensor]) -> None:
    """Replace tensors of one type by their sums over all processes."""
    if size() == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, summed in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(summed.view_as(tensor))
