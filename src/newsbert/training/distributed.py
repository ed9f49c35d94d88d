"""The processes that share a training: those that torchrun or Ray have started, or this one alone.

Each reads its part of every step's rows; gradients are summed, so that all of them have the same parameters.
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
    """Meet the other processes, if torchrun has started any."""
    if environment.torchrun_rank() is None:
        yield
        return
    dist.init_process_group()
    if torch.cuda.is_available():
        torch.cuda.set_device(dist.get_node_local_rank())
    try:
        yield
        dist.barrier()  # one that leaves while another still hears from it would abort that one
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """The number of this process; 0 keeps checkpoints and tells what happens."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def shard(rows: Sequence[Row]) -> Sequence[Row]:
    """This process's part of what all of them have to do."""
    return rows[rank() :: size()]


def broadcast(make: Callable[[], Value]) -> Value:
    """What the first process makes, in all of them."""
    if size() == 1:
        return make()
    values: list[Value | None] = [make() if rank() == 0 else None]
    dist.broadcast_object_list(values)
    return values[0]  # type: ignore[return-value]


def all_reduce(tensors: Sequence[Tensor]) -> None:
    """Replace tensors of one kind by their sums over all processes."""
    if size() == 1:
        return
    flat = torch.cat([each.flatten() for each in tensors])
    dist.all_reduce(flat)
    for each, summed in zip(tensors, torch.split(flat, [each.numel() for each in tensors]), strict=True):
        each.copy_(summed.view_as(each))
